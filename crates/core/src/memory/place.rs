//! Placing memory in a reservation and taking it out again.

use nix::sys::mman::ProtFlags;

use super::charged::Charged;
use super::extent::{Extent, Source};
use super::private::PrivateMemory;
use super::reservation::{AddressSpaceReservation, Inner, State, in_use};
use super::sys::Window;
use super::{budget, sys};
use crate::dropper;
use crate::{Error, ErrorCode, Range, Result};

impl AddressSpaceReservation {
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
            writable: true,
            present: false,
            leases: 0,
        };
        // SAFETY: the range is ours, the lock is held, and nothing is placed there. What stays there
        // after a failure becomes an extent, so the range stays its own.
        if let Err(error) = unsafe { memory.place(&part, at) } {
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
        let touched = state.extents.parts_in(range);
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
            if let Err(error) = unsafe { memory.take_home(&part) } {
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
            if unsafe { memory.place(&part, at) }.is_err() {
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
    pub(super) fn give_back(&self, range: &Range) -> Result<()> {
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
pub(super) fn check_free(state: &State, range: &Range) -> Result<()> {
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
