//! Maps private memory in a reservation, and unmaps any mapping.

use nix::sys::mman::ProtFlags;

use super::charged::Charged;
use super::extent::{Extent, ExtentSource};
use super::private::PrivateMemory;
use super::reservation::{AddressSpaceReservation, Inner, ReservationState, in_use};
use super::sys::Window;
use super::{budget, sys};
use crate::dropper;
use crate::{Error, ErrorCode, Range, Result};

impl AddressSpaceReservation {
    /// Maps `length` bytes of `memory` from `memory_offset` at `offset`, where nothing may be mapped. The pages move
    /// there, in time proportional to their number; each byte can be mapped once. A failure is rolled back. If the
    /// rollback fails too, the error states it, and the pages that were moved stay mapped until they are unmapped.
    ///
    /// # Errors
    /// `ERR_OVERLAP` (the range or a part of the memory is mapped already), `ERR_VA_IN_USE`, `ERR_OUT_OF_RANGE`,
    /// `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`, `ERR_MAPPING_LIMIT`, `ERR_SYSTEM`.
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
            source: ExtentSource::Private(memory.clone(), memory_offset),
            writable: true,
            present: false,
            leases: 0,
        };
        // SAFETY: the range is ours, the lock is held, and nothing is mapped there. Pages that stay there after a
        // failure become an extent, so the range stays ours.
        if let Err(error) = unsafe { memory.place(&part, at) } {
            let still_mapped = self.inner.reconcile(&mut state, &extent);
            let error = error.context(format_args!("at {range}"));
            return Err(match still_mapped {
                None => error,
                Some(still_mapped) => error.followed_by(format_args!(
                    "{still_mapped} could not be rolled back and stays mapped. Unmap it"
                )),
            });
        }
        state.extents.insert(extent);
        Ok(())
    }

    /// Unmaps `length` bytes from `offset`: any number of mappings, parts of mappings, and gaps. Private memory keeps
    /// its bytes. The addresses stay reserved.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` with the first leased part, and nothing changed; `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED` (for
    /// hugetlb: to its page size), `ERR_EMPTY_RANGE`, `ERR_CLOSED`, `ERR_MAPPING_LIMIT` (only for a hole in the
    /// middle of a mapping, which splits it), `ERR_SYSTEM`.
    pub fn unmap(&self, offset: u64, length: u64) -> Result<()> {
        let range = self.inner.check(offset, length)?;
        let mut state = self.inner.open_state()?;
        let removed = self.inner.unmap(&mut state, &range)?;
        drop(state);
        removed.drop_unlocked();
        Ok(())
    }
}

/// The smallest mapping in bytes that is faster to move than to unmap.
const WORTH_MOVING: u64 = 1 << 20;

/// The removed mappings of a reservation.
#[derive(Debug, Default)]
pub(super) struct RemovedMappings {
    mappings: Vec<Charged>,
    #[expect(dead_code, reason = "it is there to be dropped")]
    extents: Vec<Extent>,
}

impl RemovedMappings {
    /// Drops the mappings. The caller must not hold the reservation's lock: this may drop the last use of a device or
    /// file.
    pub(super) fn drop_unlocked(self) {
        if !self.mappings.is_empty() {
            dropper::drop_later(self.mappings);
        }
    }
}

impl Inner {
    /// Unmaps `range`: all of it or, on failure, nothing. Returns the removed mappings, to drop after the lock is
    /// released.
    pub(super) fn unmap(
        &self,
        state: &mut ReservationState,
        range: &Range,
    ) -> Result<RemovedMappings> {
        if let Some(leased) = state.first_leased(range) {
            return Err(in_use(&leased));
        }
        let touched = state.extents.parts_in(range);
        for extent in &touched {
            if let ExtentSource::File(file, _) = &extent.source {
                extent.range.check_aligned(file.file.page_size(), "range")?;
            }
        }
        if touched.is_empty() {
            return Ok(RemovedMappings::default());
        }
        let fewer = self.charge_for_emptying(state, range, &touched)?;
        for (index, extent) in touched.iter().enumerate() {
            let ExtentSource::Private(memory, offset) = &extent.source else {
                continue;
            };
            let part = Range::new(*offset, extent.range.len())?;
            // SAFETY: the extent's addresses are ours and not leased.
            if let Err(error) = unsafe { memory.return_to_origin(&part) } {
                self.reconcile(state, extent);
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
        Ok(RemovedMappings { mappings, extents })
    }

    /// Moves large mappings of files to other addresses, for the dropper to unmap. Moving page tables is fast, emptying
    /// them is not. Mappings that cannot be moved remain. The files keep their pages in either case.
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
        // SAFETY: both ranges are ours, the extent is not leased, and nothing relies on the target.
        if unsafe { sys::move_pages(from, to, length) }.is_ok() {
            return Some(window);
        }
        // SAFETY: the range is ours, except for a hole in it.
        if !unsafe { sys::refill(to, length, ProtFlags::PROT_NONE) } {
            // Another thread may have mapped memory in a hole. Leaks some empty addresses.
            std::mem::forget(window);
        }
        None
    }

    /// Reserves the kernel mappings that emptying `range` adds. Only a hole in the middle of a mapping adds any.
    /// Returns the number of mappings that it removes, to credit afterwards.
    fn charge_for_emptying(
        &self,
        state: &ReservationState,
        range: &Range,
        touched: &[Extent],
    ) -> Result<usize> {
        let (removed, mut added) = state.extents.cost_of_emptying(range, &self.whole()?);
        for extent in touched {
            if let ExtentSource::Private(memory, offset) = &extent.source {
                let part = Range::new(*offset, extent.range.len())?;
                added = added.saturating_add(memory.cost_of_splitting(&part));
            }
        }
        if added > removed {
            budget::charge(added.saturating_sub(removed))
                .map_err(|error| error.context(format_args!("unmapping {range}")))?;
        }
        Ok(removed.saturating_sub(added))
    }

    /// Reverts the moves of a failed unmap. Pages that cannot be moved stay at the origin and are no longer mapped.
    fn place_again(&self, state: &mut ReservationState, extents: &[Extent]) {
        for extent in extents {
            let ExtentSource::Private(memory, offset) = &extent.source else {
                continue;
            };
            let (Ok(part), Ok((at, _))) = (
                Range::new(*offset, extent.range.len()),
                self.locate(&extent.range),
            ) else {
                continue;
            };
            // SAFETY: the addresses are ours; the pages that were there moved to the origin a moment ago.
            if unsafe { memory.place(&part, at) }.is_err() {
                self.reconcile(state, extent);
            }
        }
    }

    /// Updates the records of `extent`'s range after a failed move that was not fully rolled back. They receive the
    /// actual addresses of its private memory. The pages in the range become extents; the rest becomes inaccessible.
    /// Returns a range that contains all of the pages that stay mapped.
    fn reconcile(&self, state: &mut ReservationState, extent: &Extent) -> Option<Range> {
        let ExtentSource::Private(memory, offset) = &extent.source else {
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
        // It is better to keep a record too many than to have mapped memory without a record.
        let kept = kept.unwrap_or_else(|| vec![extent.clone()]);
        // The caller owns what these own: nothing is released under the lock.
        drop(state.extents.remove(&extent.range));
        let mut end = extent.range.start();
        let mut all: Option<Range> = None;
        for kept in kept {
            let start = kept.range.start();
            // A gap that cannot be covered stays empty memory without a reference; the next map or unmap replaces it.
            let _ = Range::between(end, start).map(|gap| self.give_back(&gap));
            end = kept.range.end();
            let first = all.map_or(start, |all| all.start());
            all = Range::between(first, end);
            state.extents.insert(kept);
        }
        let _ = Range::between(end, extent.range.end()).map(|gap| self.give_back(&gap));
        all
    }

    /// Makes `range` inaccessible again, without ever opening a hole.
    pub(super) fn give_back(&self, range: &Range) -> Result<()> {
        let (at, size) = self.locate(range)?;
        // SAFETY: the range is ours, and no mapping in it is leased.
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

/// Whether moving an extent is possible, and faster than unmapping it. BARs and huge pages cannot be moved
/// (`VM_PFNMAP`, `VM_DONTEXPAND`), and are fast to unmap.
fn is_movable(extent: &Extent) -> bool {
    matches!(&extent.source, ExtentSource::File(placed, _) if !placed.file.is_device() && !placed.file.is_hugetlb())
        && extent.range.len() >= WORTH_MOVING
}

/// Checks that nothing is mapped in `range`.
pub(super) fn check_free(state: &ReservationState, range: &Range) -> Result<()> {
    let Some(extent) = state.extents.overlapping(range).next() else {
        return Ok(());
    };
    let (code, reason) = match state.first_leased(range) {
        Some(leased) => (ErrorCode::VaInUse, format!("a lease holds {leased}")),
        None => (
            ErrorCode::Overlap,
            format!("it overlaps the mapping at {}", extent.range),
        ),
    };
    let message = format!("{range} cannot be mapped: {reason}");
    Err(Error::new(code, message))
}
