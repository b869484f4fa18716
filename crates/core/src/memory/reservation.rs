//! A reservation of address space, in which guest memory is placed at its guest-physical offset.

use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::extent::{Extent, ExtentMap, Source};
use super::lease::Lease;
use super::leased::LeaseCounts;
use super::pacer::Pacer;
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

impl State {
    /// The first leased part of `range`.
    pub(super) fn first_leased(&self, range: &Range) -> Option<Range> {
        let mut extents = self.extents.overlapping(range);
        let extent = extents.find(|extent| extent.leases > 0);
        let whole = extent.and_then(|extent| extent.range.intersection(range));
        let part = self.leases.first_in(range);
        [whole, part].into_iter().flatten().min()
    }
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
        let ranges = ranges
            .iter()
            .map(|(offset, length)| (*offset, *length, true));
        self.lease_batch(ranges)?.fault_in().map(drop)
    }

    /// Faults in what of some ranges is not there yet.
    ///
    /// # Safety
    /// The ranges stay mapped as they are until after this call.
    unsafe fn fault_in(&self, ranges: &[Range]) -> Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        let mut targets: Vec<populate::Target> = Vec::new();
        let state = lock(&self.inner.state);
        for range in ranges {
            let extents = state.extents.overlapping(range);
            for target in extents.filter_map(|extent| target(extent, range)) {
                if !targets.last_mut().is_some_and(|last| last.join(&target)) {
                    targets.push(target);
                }
            }
        }
        drop(state);
        if targets.is_empty() {
            return Ok(());
        }
        let bytes = targets
            .iter()
            .fold(0_u64, |sum, target| sum.saturating_add(target.range.len()));
        dropper::settle_before(bytes);
        // SAFETY: the caller keeps the ranges mapped as they are.
        unsafe { populate::populate(self.inner.base, &targets) }
            .map_err(|error| self.inner.explain(error))?;
        let mut state = lock(&self.inner.state);
        for target in &targets {
            state.extents.mark_present(&target.range);
        }
        Ok(())
    }

    /// Holds `length` bytes from `offset`, all of which must be mapped, until the lease is dropped.
    ///
    /// # Errors
    /// `ERR_VA_NOT_MAPPED` naming the first gap, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`,
    /// `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn lease(&self, offset: u64, length: u64) -> Result<Lease> {
        let range = self.inner.check(offset, length)?;
        let (lease, _) = self.inner.lease(&mut *self.inner.open_state()?, range)?;
        Ok(lease)
    }

    /// The same for each of several ranges, given as offset and length: all or none.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub fn lease_all(&self, ranges: &[(u64, u64)]) -> Result<Vec<Lease>> {
        let ranges = ranges
            .iter()
            .map(|(offset, length)| (*offset, *length, false));
        Ok(self.lease_batch(ranges)?.leases)
    }

    /// The same, with what of those ranges is to be faulted in whose third part says so.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub fn lease_batch(
        &self,
        ranges: impl ExactSizeIterator<Item = (u64, u64, bool)>,
    ) -> Result<LeasedBatch> {
        // Declared before the lock, which those that came before one that fails need to go.
        let mut leases = Vec::with_capacity(ranges.len());
        let mut absent = Vec::new();
        let mut state = self.inner.open_state()?;
        for (offset, length, fault_in) in ranges {
            let range = self.inner.check(offset, length)?;
            let (lease, present) = self.inner.lease(&mut state, range)?;
            leases.push(lease);
            if fault_in && !present {
                absent.push(range);
            }
        }
        drop(state);
        Ok(LeasedBatch {
            reservation: self.clone(),
            leases,
            absent,
        })
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

    /// Unmaps everything, part by part, and refuses all further calls; a second call does nothing. The address
    /// space itself goes back when the last handle is dropped.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` while any lease is held, with nothing changed; `ERR_SYSTEM`, with what could not be unmapped left:
    /// it can be called again.
    pub fn close(&self) -> Result<()> {
        let whole = self.inner.whole()?;
        let mut state = lock(&self.inner.state);
        if state.closed {
            return Ok(());
        }
        if let Some(leased) = state.first_leased(&whole) {
            return Err(in_use(&leased));
        }
        state.closed = true; // from now on nothing is leased or placed
        drop(state);
        let mut pacer = Pacer::new();
        loop {
            let mut state = lock(&self.inner.state);
            let Some(part) = state.extents.first_part(CLOSED_AT_ONCE) else {
                return Ok(());
            };
            match self.inner.unmap(&mut state, &part) {
                Ok(gone) => {
                    drop(state);
                    gone.drop_unlocked();
                }
                Err(error) => {
                    state.closed = false;
                    return Err(error);
                }
            }
            pacer.pace();
        }
    }
}

/// Leases, and what of their memory is still to be faulted in.
#[derive(Debug)]
pub struct LeasedBatch {
    reservation: AddressSpaceReservation,
    leases: Vec<Lease>,
    absent: Vec<Range>,
}

impl LeasedBatch {
    /// Faults in what is to be, and returns the leases.
    ///
    /// # Errors
    /// As [`ensure_mapped`](AddressSpaceReservation::ensure_mapped).
    pub fn fault_in(self) -> Result<Vec<Lease>> {
        // SAFETY: the leases keep the ranges mapped as they are.
        unsafe { self.reservation.fault_in(&self.absent) }?;
        Ok(self.leases)
    }
}

/// So many mappings are unmapped by one system call when a reservation closes: no thread of the process can map anything
/// meanwhile.
const CLOSED_AT_ONCE: usize = 128;

/// What is leased can't be unmapped.
pub(super) fn in_use(leased: &Range) -> Error {
    let message = format!("{leased} is in use: a lease (an IOMMU mapping, usually) holds it");
    Error::new(ErrorCode::VaInUse, message)
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

    /// A lease of a checked range, and whether nothing of it has to be faulted in.
    fn lease(self: &Arc<Self>, state: &mut State, range: Range) -> Result<(Lease, bool)> {
        let (address, _) = self.locate(&range)?;
        if let Some(extent) = state.extents.exact(&range)
            && let Some(leases) = extent.leases.checked_add(1)
        {
            extent.leases = leases;
            let present = extent.present || extent.is_device();
            return Ok((Lease::new(Arc::clone(self), range, address, true), present));
        }
        if let Some(gap) = state.extents.first_gap(&range) {
            let message = format!("{range} is not mapped throughout: nothing at {gap}");
            return Err(Error::new(ErrorCode::VaNotMapped, message));
        }
        state.leases.add(&range);
        let present = state.extents.is_present(&range);
        Ok((Lease::new(Arc::clone(self), range, address, false), present))
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

    /// Ends a lease. `exact`: it is counted by the extent of its range, which is there as long as it is leased.
    pub(super) fn release(&self, range: &Range, exact: bool) {
        let mut state = lock(&self.state);
        match state.extents.exact(range) {
            Some(extent) if exact => extent.leases = extent.leases.saturating_sub(1),
            _ => state.leases.remove(range),
        }
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
