//! Placing memory in a reservation and taking it out again.

use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::charged::Charged;
use super::extent::{Extent, Source};
use super::file::{MemoryFile, PlacedFile};
use super::huge::huge_page_code;
use super::pacer::Pacer;
use super::private::PrivateMemory;
use super::reservation::{AddressSpaceReservation, Inner, State, in_use};
use super::sys::Window;
use super::{budget, policy, sys};
use crate::dropper;
use crate::range::{check_aligned, to_offset};
use crate::{Error, ErrorCode, Range, Result};

/// Part of a file, to be mapped into a reservation.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// Where, in bytes from the start of the reservation.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    /// The file.
    pub file: MemoryFile,
    /// In bytes from the start of the file.
    pub file_offset: u64,
    /// Whether this process may write it.
    pub writable: bool,
    /// Whether to ask for huge pages (`MADV_HUGEPAGE`), where the kernel has them.
    pub transparent_huge: bool,
}

impl FilePart {
    /// Whether one kernel mapping can have this part and then `next`. Devices and hugetlb files map each part by itself:
    /// whether they accept it depends on the part.
    fn continues(&self, next: &Self) -> bool {
        self.is_ordinary()
            && self.file.is_same(&next.file)
            && self.offset.checked_add(self.length) == Some(next.offset)
            && self.file_offset.checked_add(self.length) == Some(next.file_offset)
            && (self.writable, self.transparent_huge) == (next.writable, next.transparent_huge)
    }

    fn is_ordinary(&self) -> bool {
        !self.file.is_device() && !self.file.is_hugetlb()
    }
}

impl AddressSpaceReservation {
    /// Maps `length` bytes of `file` from `file_offset`, shared, at `offset`, where nothing may be
    /// placed yet. All three are multiples of the file's page size. `transparent_huge` asks for huge
    /// pages (`MADV_HUGEPAGE`), where the kernel has them.
    ///
    /// # Errors
    /// `ERR_OVERLAP`, `ERR_VA_IN_USE` (a lease holds what is there), `ERR_OUT_OF_RANGE` (beyond the
    /// reservation or the file), `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`,
    /// `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_MAPPING_LIMIT`, `ERR_SYSTEM` (`EACCES`: the descriptor is read-only; `EINVAL`:
    /// that part of a device can't be mapped).
    pub fn map_file(
        &self,
        offset: u64,
        length: u64,
        file: &MemoryFile,
        file_offset: u64,
        writable: bool,
        transparent_huge: bool,
    ) -> Result<()> {
        let part = FilePart {
            offset,
            length,
            file: file.clone(),
            file_offset,
            writable,
            transparent_huge,
        };
        self.map_files(&[part]).map_err(|(_, error)| error)
    }

    /// Maps parts of files, one after another. Neighbours that continue each other get one mapping of the kernel.
    ///
    /// # Errors
    /// As [`map_file`](Self::map_file), with which of the parts it is; those before it are mapped.
    pub fn map_files(&self, parts: &[FilePart]) -> Result<(), (usize, Error)> {
        let mut pacer = Pacer::new();
        let mut rest = parts;
        while !rest.is_empty() {
            let index = parts.len().saturating_sub(rest.len());
            let more = rest.iter().zip(rest.iter().skip(1));
            let more = more.take_while(|(one, next)| one.continues(next)).count();
            let (run, after) = rest.split_at(more.saturating_add(1));
            self.map_run(run).map_err(|error| (index, error))?;
            rest = after;
            pacer.pace();
        }
        Ok(())
    }

    /// Maps parts that are one mapping of the kernel.
    fn map_run(&self, run: &[FilePart]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let FilePart {
            file,
            file_offset,
            writable,
            transparent_huge,
            ..
        } = first;
        let page = file.page_size();
        for one in run {
            let range = self.inner.check(one.offset, one.length)?;
            range.check_aligned(page, "range")?;
        }
        let end = self.inner.check(last.offset, last.length)?.end();
        let range = Range::new(first.offset, end.saturating_sub(first.offset))?;
        let part = Range::new(*file_offset, range.len())?;
        check_aligned(
            *file_offset,
            page,
            format_args!("file offset {file_offset:#x}"),
        )?;
        part.check_within(file.length()?, "the file")?;
        let kernel_offset = to_offset(*file_offset)?;
        let placed = Arc::new(PlacedFile::new(file)?);
        let mut state = self.inner.open_state()?;
        check_free(&state, &range)?;
        let cost = state.extents.cost_of_placing(&range, &self.inner.whole()?);
        budget::charge(cost).map_err(|error| error.context(format_args!("mapping {range}")))?;
        let (at, size) = self.inner.locate(&range)?;
        let prot = sys::protection(*writable);
        let what = || format!("mapping {part} of a file at {range}");
        let failed = |errno| {
            let code = match errno {
                Errno::ENOMEM if file.is_hugetlb() => huge_page_code(errno),
                _ => ErrorCode::System,
            };
            Error::os(code, errno, "mmap", what())
        };
        let mapped = file.with_fd(|fd| {
            // A rehearsal elsewhere: what the file refuses, it refuses here, where a failure leaves
            // no hole in the reservation (MAP_FIXED removes the old mapping before it asks the file).
            if !file.is_mappable(*writable) {
                Window::new(size, prot, fd, kernel_offset)?.unmap_untouched();
            }
            // SAFETY: the range is ours, the lock is held, and nothing is placed there.
            unsafe { sys::map_file_at(at, size, prot, fd, kernel_offset) }
        })?;
        if let Err(errno) = mapped {
            // SAFETY: the range is ours.
            unsafe { sys::refill(at, size, ProtFlags::PROT_NONE) };
            return Err(failed(errno));
        }
        file.set_mappable(*writable);
        if let Some(node) = file.mapping_node() {
            // SAFETY: mapped just now, ours.
            if let Err(error) = unsafe { policy::bind_to_node(at, size, node) } {
                let _ = self.inner.give_back(&range);
                return Err(error.context(what()));
            }
        }
        if *transparent_huge {
            // SAFETY: mapped just now, ours. Advice only; a kernel without huge pages says EINVAL.
            let _ = unsafe { sys::advise(at, size, MmapAdvise::MADV_HUGEPAGE) };
        }
        for one in run {
            state.extents.insert(Extent {
                range: Range::new(one.offset, one.length)?,
                source: Source::File(Arc::clone(&placed), one.file_offset),
                writable: *writable,
                present: false,
                leases: 0,
            });
        }
        Ok(())
    }

    /// Places `length` bytes of `memory` from `memory_offset` at `offset`, where nothing may be
    /// placed yet. The pages move there; each byte can be in one place only. Time grows with the
    /// number of pages. A failure is undone; where the kernel refuses that too, the error says so, and
    /// what did move stays placed until it is unmapped.
    ///
    /// # Errors
    /// `ERR_OVERLAP` (something is placed there, or part of the memory is placed elsewhere),
    /// `ERR_VA_IN_USE`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`,
    /// `ERR_MAPPING_LIMIT`, `ERR_SYSTEM`.
    pub fn map_private(
        &self,
        offset: u64,
        length: u64,
        memory: &PrivateMemory,
        memory_offset: u64,
        writable: bool,
    ) -> Result<()> {
        let range = self.inner.check(offset, length)?;
        let part = Range::new(memory_offset, length)?;
        part.check_aligned(self.inner.page, "private memory")?;
        let mut state = self.inner.open_state()?;
        check_free(&state, &range)?;
        part.check_within(memory.length(), "the private memory")?;
        let cost = state.extents.cost_of_placing(&range, &self.inner.whole()?);
        let cost = cost.saturating_add(memory.cost_of_moving(&part));
        budget::charge(cost).map_err(|error| error.context(format_args!("mapping {range}")))?;
        let (at, _) = self.inner.locate(&range)?;
        let extent = Extent {
            range,
            source: Source::Private(memory.clone(), memory_offset),
            writable,
            present: false,
            leases: 0,
        };
        // SAFETY: the range is ours, the lock is held, and nothing is placed there. What stays there
        // after a failure becomes an extent, so the range stays its own.
        if let Err(error) = unsafe { memory.place(&part, at, writable) } {
            let stuck = self.inner.settle(&mut state, &extent);
            let error = error.context(format_args!("at {range}"));
            return Err(match stuck {
                None => error,
                Some(stuck) => error.followed_by(format_args!(
                    "{stuck} could not be undone and stays mapped until it is unmapped"
                )),
            });
        }
        state.extents.insert(extent);
        Ok(())
    }

    /// Takes out whatever is placed in `length` bytes from `offset`: any number of mappings, parts
    /// of mappings, gaps. Private memory keeps its bytes. The addresses stay reserved.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` naming the first part that is leased, with nothing changed;
    /// `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED` (for hugetlb: of its page size), `ERR_EMPTY_RANGE`,
    /// `ERR_CLOSED`, `ERR_MAPPING_LIMIT` (only for a hole amid mappings, which makes two of one),
    /// `ERR_SYSTEM`.
    pub fn unmap(&self, offset: u64, length: u64) -> Result<()> {
        let range = self.inner.check(offset, length)?;
        let mut state = self.inner.open_state()?;
        let gone = self.inner.unmap(&mut state, &range)?;
        drop(state);
        gone.drop_unlocked();
        Ok(())
    }
}

/// Moving a mapping of fewer bytes than this is no quicker than unmapping it.
const WORTH_MOVING: u64 = 1 << 20;

/// What was taken out of a reservation.
#[derive(Debug, Default)]
pub(super) struct Gone {
    mappings: Vec<Charged>,
    #[expect(dead_code, reason = "it is there to be dropped")]
    extents: Vec<Extent>,
}

impl Gone {
    /// The caller must not hold the reservation's lock: this may drop the last use of a device or a file.
    pub(super) fn drop_unlocked(self) {
        if !self.mappings.is_empty() {
            dropper::drop_later(self.mappings);
        }
    }
}

impl Inner {
    /// Takes out what is placed in `range`, all of it or, on failure, nothing. Returns what was
    /// touched, to be dropped after the lock.
    pub(super) fn unmap(&self, state: &mut State, range: &Range) -> Result<Gone> {
        if let Some(leased) = state.first_leased(range) {
            return Err(in_use(&leased));
        }
        let touched = state.extents.parts_in(range)?;
        for extent in &touched {
            if let Source::File(file, _) = &extent.source {
                extent.range.check_aligned(file.file.page_size(), "range")?;
            }
        }
        if touched.is_empty() {
            return Ok(Gone::default());
        }
        let fewer = self.charge_for_emptying(state, range, &touched)?;
        for (index, extent) in touched.iter().enumerate() {
            let Source::Private(memory, offset) = &extent.source else {
                continue;
            };
            let part = Range::new(*offset, extent.range.len())?;
            // SAFETY: the extent's addresses are ours and not leased.
            if let Err(error) = unsafe { memory.take_home(&part, extent.writable) } {
                self.settle(state, extent);
                self.place_again(state, touched.get(..index).unwrap_or_default());
                return Err(error.context(format!("unmapping {range}")));
            }
        }
        let mappings = self.move_away(&touched);
        if let Err(error) = self.give_back(range) {
            self.place_again(state, &touched);
            return Err(error);
        }
        let mut extents = state.extents.remove(range);
        extents.extend(touched);
        budget::credit(fewer);
        Ok(Gone { mappings, extents })
    }

    /// Moves the mappings of files to other addresses, if that is much memory, for the dropper to unmap: moving page
    /// tables is quick, emptying them is not. What does not move is left. The pages stay with the files in either case.
    fn move_away(&self, extents: &[Extent]) -> Vec<Charged> {
        let movable = extents.iter().filter(|extent| is_movable(extent));
        let bytes = movable
            .clone()
            .fold(0_u64, |sum, extent| sum.saturating_add(extent.range.len()));
        if bytes < dropper::LARGE {
            return Vec::new();
        }
        movable
            .filter_map(|extent| self.move_one_away(extent))
            .collect()
    }

    fn move_one_away(&self, extent: &Extent) -> Option<Charged> {
        let (from, length) = self.locate(&extent.range).ok()?;
        budget::charge(1).ok()?;
        let Ok(to) = sys::map_like(from, length, ProtFlags::PROT_NONE) else {
            budget::credit(1);
            return None;
        };
        // SAFETY: mapped just now; nothing else refers to it.
        let window = Charged::new(unsafe { Window::from_parts(to, length) }, 1);
        // SAFETY: both ranges are ours, the extent is not leased, and nothing relies on what is at the target.
        if unsafe { sys::move_pages(from, to, length) }.is_ok() {
            return Some(window);
        }
        // SAFETY: the range is ours, but for a hole in it.
        if !unsafe { sys::refill(to, length, ProtFlags::PROT_NONE) } {
            // Another thread may have mapped something in a hole by now. Leaked: some empty addresses.
            std::mem::forget(window);
        }
        None
    }

    /// Asks for the kernel mappings that emptying `range` adds, which only a hole amid mappings does.
    /// Returns how many go instead, to be given back once they are gone.
    fn charge_for_emptying(
        &self,
        state: &State,
        range: &Range,
        touched: &[Extent],
    ) -> Result<usize> {
        let (go, mut come) = state.extents.cost_of_emptying(range, &self.whole()?);
        for extent in touched {
            if let Source::Private(memory, offset) = &extent.source {
                let part = Range::new(*offset, extent.range.len())?;
                come = come.saturating_add(memory.cost_of_splitting(&part));
            }
        }
        if come > go {
            budget::charge(come.saturating_sub(go))
                .map_err(|error| error.context(format_args!("unmapping {range}")))?;
        }
        Ok(go.saturating_sub(come))
    }

    /// Undoes the moves of a failed unmap. What can't be put back is at home, and no longer placed.
    fn place_again(&self, state: &mut State, extents: &[Extent]) {
        for extent in extents {
            let Source::Private(memory, offset) = &extent.source else {
                continue;
            };
            let (Ok(part), Ok((at, _))) = (
                Range::new(*offset, extent.range.len()),
                self.locate(&extent.range),
            ) else {
                continue;
            };
            // SAFETY: the addresses are ours; what was placed there went home a moment ago.
            if unsafe { memory.place(&part, at, extent.writable) }.is_err() {
                self.settle(state, extent);
            }
        }
    }

    /// After a move which failed and could not be undone, or not wholly: brings the records of
    /// `extent`'s range in line with where its private memory is. What is placed there is an extent;
    /// the rest is none, and inaccessible. Returns a range that has all of what is placed.
    fn settle(&self, state: &mut State, extent: &Extent) -> Option<Range> {
        let Source::Private(memory, offset) = &extent.source else {
            return None;
        };
        let part = Range::new(*offset, extent.range.len()).ok()?;
        let (address, _) = self.locate(&extent.range).ok()?;
        let kept: Option<Vec<Extent>> = memory
            .placed_at(&part, address)
            .iter()
            .map(|placed| {
                let within = placed.start().checked_sub(*offset)?;
                let start = extent.range.start().checked_add(within)?;
                extent.clipped(&Range::new(start, placed.len()).ok()?)
            })
            .collect();
        // Better that too much stays on record than that memory is placed without one.
        let kept = kept.unwrap_or_else(|| vec![extent.clone()]);
        // The caller holds what these hold: nothing is dropped for good under the lock.
        drop(state.extents.remove(&extent.range));
        let mut end = extent.range.start();
        let mut all: Option<Range> = None;
        for kept in kept {
            let start = kept.range.start();
            // What can't be covered stays empty memory that nothing refers to; the next placement
            // or unmapping of it replaces that.
            let _ = Range::between(end, start).map(|gap| self.give_back(&gap));
            end = kept.range.end();
            let first = all.map_or(start, |all| all.start());
            all = Range::between(first, end);
            state.extents.insert(kept);
        }
        let _ = Range::between(end, extent.range.end()).map(|gap| self.give_back(&gap));
        all
    }

    /// Makes `range` inaccessible again, without ever leaving a hole.
    fn give_back(&self, range: &Range) -> Result<()> {
        let (at, size) = self.locate(range)?;
        // SAFETY: the range is ours, and nothing placed there is leased.
        let covered = unsafe {
            sys::cover(at, size, ProtFlags::PROT_NONE).or_else(|errno| {
                let filled = sys::refill(at, size, ProtFlags::PROT_NONE);
                filled.then_some(()).ok_or(errno)
            })
        };
        covered.map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "mmap",
                format!("unmapping {range}"),
            )
        })
    }
}

/// Whether an extent can be moved away, and is worth it. BARs and huge pages can't (`VM_PFNMAP`, `VM_DONTEXPAND`), and
/// are unmapped quickly.
fn is_movable(extent: &Extent) -> bool {
    matches!(&extent.source, Source::File(placed, _) if !placed.file.is_device() && !placed.file.is_hugetlb())
        && extent.range.len() >= WORTH_MOVING
}

/// Checks that nothing is placed in `range`.
fn check_free(state: &State, range: &Range) -> Result<()> {
    if let Some(leased) = state.first_leased(range) {
        let message = format!("{range} can't be mapped: a lease holds what is at {leased}");
        return Err(Error::new(ErrorCode::VaInUse, message));
    }
    if let Some(extent) = state.extents.overlapping(range).next() {
        let message = format!(
            "{range} can't be mapped: something is mapped at {}",
            extent.range
        );
        return Err(Error::new(ErrorCode::Overlap, message));
    }
    Ok(())
}
