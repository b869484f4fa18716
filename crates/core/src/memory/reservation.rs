//! A reservation of address space, in which guest memory is placed at its guest-physical offset.

use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::extent::{Extent, ExtentMap, Source};
use super::lease::Lease;
use super::leased::LeaseCounts;
use super::unclosed::Unclosed;
use super::{budget, populate, sys};
use crate::dropper;
use crate::locked::{lock, owned};
use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result, host_page_size};

const WIDTHS: std::ops::RangeInclusive<u32> = 12..=57;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) closed: bool,
    pub(super) extents: ExtentMap,
    pub(super) leases: LeaseCounts,
}

#[derive(Debug)]
pub(crate) struct Inner {
    base: usize,
    length: u64,
    pub(super) page: u64,
    pub(super) state: Mutex<State>,
}

/// `2^width` bytes of address space, reserved but inaccessible until something is placed there.
///
/// Offsets count from its start; a guest-physical address is one. The addresses themselves are for
/// the kernel and for Rust callers (`host_va`); the addon gives none of them to JavaScript. Clones share the reservation; the address space is given back when the last
/// clone and the last [`Lease`] are gone.
///
/// A device's BAR placed here keeps its device alive, and through it the group; a container's IOMMU
/// mappings keep leases of the reservation until they are unmapped, at the latest when the last handle
/// of the container goes.
#[derive(Debug, Clone)]
pub struct AddressSpaceReservation {
    pub(super) inner: Arc<Inner>,
}

impl AddressSpaceReservation {
    /// Reserves `2^width_bits` bytes. The base is a multiple of 1 GiB, so that host and guest
    /// addresses agree modulo every page size.
    ///
    /// A process has 47 bits of address space on x86-64, other mappings included. Up to 45 bits fit
    /// into one always; 46 only as long as nothing lies in the middle, where V8 likes to put parts of
    /// its heap; 47 never.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a width not in 12..=57 or below the page size,
    /// `ERR_ADDRESS_SPACE_LIMIT` where the kernel refuses that much, `ERR_MAPPING_LIMIT`.
    pub fn new(width_bits: u32) -> Result<Self> {
        let page = host_page_size()?;
        let length = 1_u64
            .checked_shl(width_bits)
            .filter(|length| WIDTHS.contains(&width_bits) && *length >= page);
        let Some(length) = length else {
            let message = format!(
                "an address width of {width_bits} bits; expected {} to {}",
                WIDTHS.start(),
                WIDTHS.end()
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        };
        let size = to_usize(length)?;
        budget::charge(1)?;
        let base = sys::reserve(size).map_err(|errno| match errno {
            Errno::ENOMEM => Error::os(
                ErrorCode::AddressSpaceLimit,
                errno,
                "mmap",
                format!(
                    "reserving 2^{width_bits} bytes of address space (see RLIMIT_AS and \
                     vm.overcommit_memory, or try a smaller addressWidth)"
                ),
            ),
            _ => Error::os(
                ErrorCode::System,
                errno,
                "mmap",
                format!("reserving 2^{width_bits} bytes of address space"),
            ),
        })?;
        // SAFETY: mapped just now and ours. Only hygiene, so a refusal changes nothing.
        let _ = unsafe { sys::advise(base, size, MmapAdvise::MADV_DONTDUMP) };
        Ok(Self {
            inner: Arc::new(Inner {
                base,
                length,
                page,
                state: Mutex::default(),
            }),
        })
    }

    /// In bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.inner.length
    }

    /// Checks that these ranges (offset and length) are mapped throughout and faults them in, so that
    /// pinning them can't fail for want of a page. Device memory is not touched: its pages always
    /// exist. Much memory is faulted in by several threads, and memory of sealed length only once.
    /// None of it can be unmapped meanwhile. Much memory is faulted in only after all that was released before is
    /// returned to the system.
    ///
    /// # Errors
    /// `ERR_VA_NOT_MAPPED` naming the first gap, `ERR_MEMORY_FAULT` (past the end of a file),
    /// `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn ensure_mapped(&self, ranges: &[(u64, u64)]) -> Result<()> {
        let absent = self.absent(ranges)?;
        let bytes = absent
            .iter()
            .fold(0_u64, |sum, (_, length)| sum.saturating_add(*length));
        dropper::settle_before(bytes);
        let leases = absent
            .iter()
            .map(|(offset, length)| self.lease(*offset, *length))
            .collect::<Result<Vec<_>>>()?;
        let mut targets: Vec<populate::Target> = Vec::with_capacity(leases.len());
        let state = lock(&self.inner.state);
        for lease in &leases {
            let range = lease.range();
            let extents = state.extents.overlapping(&range);
            targets.extend(extents.filter_map(|extent| target(extent, &range)));
        }
        drop(state);
        // SAFETY: the leases keep the ranges mapped as they are until after this call.
        unsafe { populate::populate(self.inner.base, &targets) }
            .map_err(|error| self.inner.explain(error))?;
        let mut state = lock(&self.inner.state);
        for target in &targets {
            state.extents.mark_present(&target.range);
        }
        drop(state);
        drop(leases);
        Ok(())
    }

    /// Those of the ranges that have something to be faulted in, or a gap.
    fn absent(&self, ranges: &[(u64, u64)]) -> Result<Vec<(u64, u64)>> {
        let state = self.inner.open_state()?;
        let mut absent = Vec::new();
        for (offset, length) in ranges {
            if !state
                .extents
                .is_present(&self.inner.check(*offset, *length)?)
            {
                absent.push((*offset, *length));
            }
        }
        Ok(absent)
    }

    /// Holds `length` bytes from `offset`, all of which must be mapped, until the lease is dropped.
    ///
    /// # Errors
    /// `ERR_VA_NOT_MAPPED` naming the first gap, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`,
    /// `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn lease(&self, offset: u64, length: u64) -> Result<Arc<Lease>> {
        let range = self.inner.check(offset, length)?;
        self.inner.lease(&mut *self.inner.open_state()?, range)
    }

    /// The same for each of several ranges, given as offset and length: all or none.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub fn lease_all(&self, ranges: &[(u64, u64)]) -> Result<Vec<Arc<Lease>>> {
        let ranges = ranges
            .iter()
            .map(|(offset, length)| self.inner.check(*offset, *length))
            .collect::<Result<Vec<_>>>()?;
        // Declared before the lock, which those that came before one that fails need to go.
        let mut leases = Vec::with_capacity(ranges.len());
        let mut state = self.inner.open_state()?;
        for range in ranges {
            leases.push(self.inner.lease(&mut state, range)?);
        }
        Ok(leases)
    }

    /// Whether `lease` is of this reservation.
    #[must_use]
    pub fn owns(&self, lease: &Lease) -> bool {
        lease.is_of(&self.inner)
    }

    /// The address of `length` bytes at `offset` in this process. Nothing says they are mapped: that
    /// takes a [`lease`](Self::lease).
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`.
    pub fn host_va(&self, offset: u64, length: u64) -> Result<u64> {
        let range = Range::new(offset, length)?;
        range.check_within(self.inner.length, "the reservation")?;
        self.inner
            .locate(&range)
            .map(|(address, _)| crate::range::to_u64(address))
    }

    /// Unmaps everything and refuses all further calls; a second call does nothing. The address
    /// space itself goes back when the last handle is dropped.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` while any lease is held, with nothing changed; `ERR_SYSTEM`.
    pub fn close(&self) -> Result<()> {
        let mut state = lock(&self.inner.state);
        if state.closed {
            return Ok(());
        }
        let gone = self.inner.unmap(&mut state, &self.inner.whole()?)?;
        state.closed = true;
        drop(state);
        gone.drop_unlocked();
        Ok(())
    }
}

impl Inner {
    /// A range of the reservation, checked.
    pub(super) fn check(&self, offset: u64, length: u64) -> Result<Range> {
        let range = Range::new(offset, length)?;
        range.check_within(self.length, "the reservation")?;
        range.check_aligned(self.page, "range")?;
        Ok(range)
    }

    /// The state, unless closed.
    pub(super) fn open_state(&self) -> Result<std::sync::MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.closed {
            return Err(Error::new(ErrorCode::Closed, "the reservation is closed"));
        }
        Ok(state)
    }

    /// All of the reservation.
    pub(super) fn whole(&self) -> Result<Range> {
        Range::new(0, self.length)
    }

    /// The address and size of a checked range.
    pub(super) fn locate(&self, range: &Range) -> Result<(usize, usize)> {
        let address = self.base.checked_add(to_usize(range.start())?);
        let address = address.ok_or_else(|| {
            let message = format!("{range} has no host address");
            Error::new(ErrorCode::OutOfRange, message)
        })?;
        Ok((address, to_usize(range.len())?))
    }

    /// A lease of a checked range.
    fn lease(self: &Arc<Self>, state: &mut State, range: Range) -> Result<Arc<Lease>> {
        if let Some(gap) = state.extents.first_gap(&range) {
            let message = format!("{range} is not mapped throughout: nothing at {gap}");
            return Err(Error::new(ErrorCode::VaNotMapped, message));
        }
        let (address, _) = self.locate(&range)?;
        state.leases.add(&range);
        Ok(Arc::new(Lease::new(Arc::clone(self), range, address)))
    }

    /// A fault in hugetlb memory: no pages are free, or the file was cut short.
    fn explain(&self, error: Error) -> Error {
        let Some(range) = error
            .range()
            .filter(|_| error.code() == ErrorCode::HugePagesUnavailable)
        else {
            return error;
        };
        let state = lock(&self.state);
        let cut = state.extents.overlapping(&range).any(|extent| {
            let (Some(part), Source::File(placed, _)) = (extent.clipped(&range), &extent.source)
            else {
                return false;
            };
            let Source::File(_, from) = part.source else {
                return false;
            };
            let end = from.saturating_add(part.range.len());
            placed.file.length().is_ok_and(|length| end > length)
        });
        drop(state);
        if cut {
            return error.recast(
                ErrorCode::MemoryFault,
                "its file is shorter than that by now",
            );
        }
        error
    }

    /// Ends a lease.
    pub(super) fn release(&self, range: &Range) {
        lock(&self.state).leases.remove(range);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let extents = std::mem::take(&mut owned(&mut self.state).extents);
        let unclosed = Unclosed {
            base: self.base,
            length: self.length,
            extents,
        };
        dropper::drop_memory(unclosed.memory(), unclosed);
    }
}

/// What of an extent is to be faulted in for `range`.
fn target(extent: &Extent, range: &Range) -> Option<populate::Target> {
    if extent.present {
        return None;
    }
    let part = extent.range.intersection(range)?;
    let (page_size, hugetlb) = match &extent.source {
        Source::File(file, _) if file.file.is_device() => return None,
        Source::File(file, _) => (file.file.page_size(), file.file.is_hugetlb()),
        Source::Private(memory, _) => (memory.page_size(), false),
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
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::memory::MemoryFile;

    /// An empty pool and the end of a file are the same errno. Tells them apart without a pool.
    #[test]
    fn a_truncated_file_is_no_lack_of_huge_pages() {
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
}
