//! Leases parts of a reservation, and faults them in.

use std::sync::Arc;

use super::extent::{Extent, ExtentSource};
use super::lease::Lease;
use super::populate;
use super::reservation::{AddressSpaceReservation, Inner};
use crate::dropper;
use crate::locked::lock;
use crate::range::joined;
use crate::range_list::Position;
use crate::{Error, ErrorCode, Range, Result};

impl AddressSpaceReservation {
    /// Checks that the ranges (offset and length) are mapped throughout, and faults them in. Then pinning them cannot
    /// fail for a missing page. Skips device memory, whose pages always exist, and memory of sealed length that was
    /// faulted in before. Uses several threads for large memory, after all earlier garbage is dropped. The ranges are
    /// leased during the call.
    ///
    /// # Errors
    /// `ERR_VA_NOT_MAPPED` with the first gap, `ERR_MEMORY_FAULT` (past the end of a file),
    /// `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn ensure_mapped(&self, ranges: &[(u64, u64)]) -> Result<()> {
        let requested = ranges
            .iter()
            .map(|&(offset, length)| (offset, length, true));
        let absent = self.lease_ranges(requested)?;
        let leased = || {
            ranges
                .iter()
                .filter_map(|(at, length)| Range::new(*at, *length).ok())
        };
        // SAFETY: the ranges are leased.
        let result = unsafe { self.fault_in(&absent, leased()) };
        self.inner.release(leased());
        result
    }

    /// Faults in the ranges `absent`. If that fails, faults in `each` range by itself to report the one that fails.
    ///
    /// # Safety
    /// The ranges stay mapped as they are until the call returns.
    pub(crate) unsafe fn fault_in(
        &self,
        absent: &[Range],
        each: impl Iterator<Item = Range>,
    ) -> Result<()> {
        if absent.is_empty() {
            return Ok(());
        }
        let targets = self.targets(absent.iter().copied(), true);
        dropper::flush_before(populate::bytes(&targets));
        // SAFETY: the caller keeps the ranges mapped as they are.
        if unsafe { populate::populate(self.inner.base, &targets) }.is_err() {
            let targets = self.targets(each, false);
            // SAFETY: as above.
            unsafe { populate::populate(self.inner.base, &targets) }
                .map_err(|error| self.inner.explain(error))?;
        }
        let mut state = lock(&self.inner.state);
        for target in &targets {
            state.extents.mark_present(&target.range);
        }
        Ok(())
    }

    /// Returns the memory of some ranges to fault in. `join`: joins adjoining targets if possible.
    fn targets(&self, ranges: impl Iterator<Item = Range>, join: bool) -> Vec<populate::Target> {
        let mut targets: Vec<populate::Target> = Vec::new();
        let state = lock(&self.inner.state);
        for range in ranges {
            let extents = state.extents.overlapping(&range);
            for target in extents.filter_map(|extent| target(extent, &range)) {
                let joined = join && targets.last_mut().is_some_and(|last| last.join(&target));
                if !joined {
                    targets.push(target);
                }
            }
        }
        targets
    }

    /// Leases `length` bytes from `offset`, which must be mapped throughout.
    ///
    /// # Errors
    /// `ERR_VA_NOT_MAPPED` with the first gap, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn lease(&self, offset: u64, length: u64) -> Result<Lease> {
        let range = Range::new(offset, length)?;
        self.lease_ranges(std::iter::once((offset, length, false)))?;
        // SAFETY: leased just now.
        Ok(unsafe { self.leased(range) })
    }

    /// Leases several ranges, given as offset and length, all or none.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub fn lease_all(&self, ranges: &[(u64, u64)]) -> Result<Vec<Lease>> {
        let requested = ranges
            .iter()
            .map(|&(offset, length)| (offset, length, false));
        self.lease_ranges(requested)?;
        // SAFETY: leased just now.
        let lease = |range| unsafe { self.leased(range) };
        let ranges = ranges
            .iter()
            .filter_map(|(at, length)| Range::new(*at, *length).ok());
        Ok(ranges.map(lease).collect())
    }

    /// Leases ranges, given as offset, length, and whether to fault them in, all or none. The caller must release
    /// each. Returns the ranges to fault in. Fast if the ranges are in order.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub(crate) fn lease_ranges(
        &self,
        ranges: impl Iterator<Item = (u64, u64, bool)> + Clone,
    ) -> Result<Vec<Range>> {
        let mut state = self.inner.open_state()?;
        for (offset, length, _) in ranges.clone() {
            self.inner.locate(&self.inner.check(offset, length)?)?;
        }
        let range = |(offset, length, _)| Range::new(offset, length).ok();
        let all = ranges.clone().filter_map(range);
        let absent = state.extents.absent_of(all.clone());
        let mut absent = absent.map_err(|gap| not_mapped(gap, ranges.clone()))?;
        if !absent.is_empty() {
            let requested = ranges.filter(|(.., fault_in)| *fault_in).filter_map(range);
            absent = state.extents.absent_of(requested).unwrap_or_default();
        }
        let mut near = Position::default();
        for run in joined(all) {
            state.extents.lease(&run, &mut near);
        }
        Ok(absent)
    }

    /// Releases leases of ranges.
    pub(crate) fn release(&self, ranges: impl Iterator<Item = Range>) {
        self.inner.release(ranges);
    }

    /// Returns a lease of a range that is already counted.
    ///
    /// # Safety
    /// The caller has leased the range, and passes the release to this lease.
    pub(crate) unsafe fn leased(&self, range: Range) -> Lease {
        Lease::new(Arc::clone(&self.inner), range)
    }
}

impl Inner {
    /// Explains a fault in hugetlb memory: no free pages, or a truncated file.
    fn explain(&self, error: Error) -> Error {
        let Some(range) = error
            .range()
            .filter(|_| error.code() == ErrorCode::HugePagesUnavailable)
        else {
            return error;
        };
        let state = lock(&self.state);
        let cut = state.extents.overlapping(&range).any(|extent| {
            let (Some(part), ExtentSource::File(placed, _)) =
                (extent.clipped(&range), &extent.source)
            else {
                return false;
            };
            let ExtentSource::File(_, from) = part.source else {
                return false;
            };
            let end = from.saturating_add(part.range.len());
            placed.file.length().is_ok_and(|length| end > length)
        });
        drop(state);
        if cut {
            return error.recast(ErrorCode::MemoryFault, "its file is now shorter than that");
        }
        error
    }
}

/// Returns the error for the first of the ranges that contains the gap.
fn not_mapped(gap: Range, ranges: impl Iterator<Item = (u64, u64, bool)>) -> Error {
    let mut found = ranges.filter_map(|(at, length, _)| {
        let range = Range::new(at, length).ok()?;
        Some((range, range.intersection(&gap)?))
    });
    let (range, gap) = found.next().unwrap_or((gap, gap));
    let message = format!("{range} is not mapped throughout: {gap} is unmapped");
    Error::new(ErrorCode::VaNotMapped, message)
}

/// Returns the part of an extent to fault in for `range`.
fn target(extent: &Extent, range: &Range) -> Option<populate::Target> {
    if extent.present {
        return None;
    }
    let part = extent.range.intersection(range)?;
    let (page_size, hugetlb) = match &extent.source {
        ExtentSource::File(file, _) if file.file.is_device() => return None,
        ExtentSource::File(file, _) => (file.file.page_size(), file.file.is_hugetlb()),
        ExtentSource::Private(memory, _) => (memory.page_size(), false),
    };
    Some(populate::Target {
        range: part,
        writable: extent.writable,
        page_size,
        hugetlb,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nix::errno::Errno;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::memory::MemoryFile;

    /// Distinguishes an empty pool from the end of a file, which have the same errno. Requires no pool.
    #[test]
    fn reports_a_truncated_hugetlb_file_as_a_memory_fault() {
        let raw = memfd_create("shrinks", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&raw, 8 * 4096).unwrap();
        let file = MemoryFile::from_fd(raw.as_raw_fd()).unwrap();
        let space = AddressSpaceReservation::new(32).unwrap();
        space
            .map_file(0x10_0000, 6 * 4096, &file, 2 * 4096, true, false)
            .unwrap();
        let code = |start: u64, pages: u64| {
            let error = Error::os(
                ErrorCode::HugePagesUnavailable,
                Errno::EFAULT,
                "madvise",
                "it",
            );
            let range = Range::new(0x10_0000 + start * 4096, pages * 4096).unwrap();
            space.inner.explain(error.at(range)).code()
        };
        assert_eq!(code(0, 6), ErrorCode::HugePagesUnavailable);
        nix::unistd::ftruncate(&raw, 4 * 4096).unwrap();
        assert_eq!(code(0, 6), ErrorCode::MemoryFault);
        assert_eq!(code(0, 2), ErrorCode::HugePagesUnavailable);
        assert_eq!(code(1, 2), ErrorCode::MemoryFault);
        assert_eq!(code(3, 1), ErrorCode::MemoryFault);
    }

    #[test]
    fn names_the_page_past_the_end_of_a_file_among_its_neighbours() {
        let raw = memfd_create("shrinks", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&raw, 6 * 4096).unwrap();
        let file = MemoryFile::from_fd(raw.as_raw_fd()).unwrap();
        let space = AddressSpaceReservation::new(32).unwrap();
        let pages: Vec<(u64, u64)> = (0..6).map(|page| (page * 4096, 4096)).collect();
        for (at, length) in &pages {
            space
                .map_file(*at, *length, &file, *at, true, false)
                .unwrap();
        }
        nix::unistd::ftruncate(&raw, 4 * 4096).unwrap();
        let error = space.ensure_mapped(&pages).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MemoryFault);
        assert_eq!(
            error.range(),
            Some(Range::new(4 * 4096, 4096).unwrap()),
            "{error}"
        );
        space.ensure_mapped(pages.get(..4).unwrap()).unwrap();
    }
}
