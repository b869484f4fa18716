//! A reservation of address space, which maps guest memory at its guest-physical offset.

use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::extent::ExtentMap;
use super::lease::Lease;
use super::pacer::Pacer;
use super::released_addresses::ReleasedAddresses;
use super::{budget, sys};
use crate::dropper;
use crate::locked::{lock, owned};
use crate::range::{joined, to_usize};
use crate::range_list::Position;
use crate::{Error, ErrorCode, Range, Result, host_page_size};

const WIDTHS: std::ops::RangeInclusive<u32> = 12..=57;

#[derive(Debug, Default)]
pub(super) struct ReservationState {
    pub(super) closed: bool,
    pub(super) extents: ExtentMap,
}

impl ReservationState {
    /// Returns the first leased part of `range`.
    pub(super) fn first_leased(&self, range: &Range) -> Option<Range> {
        let mut extents = self.extents.overlapping(range);
        let extent = extents.find(|extent| extent.leases > 0)?;
        extent.range.intersection(range)
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) base: usize,
    length: u64,
    pub(super) page: u64,
    pub(super) state: Mutex<ReservationState>,
}

/// `2^width` bytes of address space, inaccessible until something is mapped there.
///
/// Offsets count from its start; a guest-physical address is an offset. The host addresses are for the kernel and for
/// Rust callers (`host_va`); the addon does not pass them to JavaScript. Clones share the reservation; the last clone
/// or the last [`Lease`] releases the address space.
///
/// A mapped BAR keeps its device open, and through it the group; a container's IOMMU mappings hold leases of the
/// reservation until they are unmapped, at the latest when the last handle of the container is dropped.
#[derive(Debug, Clone)]
pub struct AddressSpaceReservation {
    pub(super) inner: Arc<Inner>,
}

impl AddressSpaceReservation {
    /// Reserves `2^width_bits` bytes. The base is a multiple of 1 GiB, so that host and guest addresses are equal
    /// modulo every page size.
    ///
    /// A process has 47 bits of address space on x86-64, other mappings included. A width of up to 45 bits always
    /// fits; 46 bits fit only if nothing lies in the middle, where V8 often allocates parts of its heap; 47 bits
    /// never fit.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if the width is not in 12..=57 or is below the page size, `ERR_ADDRESS_SPACE_LIMIT` if
    /// the kernel cannot reserve that much, `ERR_MAPPING_LIMIT`.
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

    /// The length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.inner.length
    }

    /// Whether `lease` is a lease of this reservation.
    #[must_use]
    pub fn owns(&self, lease: &Lease) -> bool {
        lease.is_of(&self.inner)
    }

    /// Returns the address of `length` bytes at `offset` in this process. It does not guarantee that they are mapped:
    /// a [`lease`](Self::lease) does.
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

    /// Unmaps everything, part by part, and rejects all further calls; a second call does nothing. The last handle
    /// releases the address space itself.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` while a lease is held, with nothing changed; `ERR_SYSTEM` if a part could not be unmapped:
    /// `close` can be called again.
    pub fn close(&self) -> Result<()> {
        let whole = self.inner.whole()?;
        let mut state = lock(&self.inner.state);
        if state.closed {
            return Ok(());
        }
        if let Some(leased) = state.first_leased(&whole) {
            return Err(in_use(&leased));
        }
        state.closed = true; // rejects new leases and mappings
        drop(state);
        let mut pacer = Pacer::new();
        loop {
            let mut state = lock(&self.inner.state);
            let Some(part) = state.extents.first_part(CLOSED_AT_ONCE) else {
                return Ok(());
            };
            match self.inner.unmap(&mut state, &part) {
                Ok(removed) => {
                    drop(state);
                    removed.drop_unlocked();
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

/// The number of mappings that one system call unmaps when a reservation closes. No thread of the process can map
/// memory meanwhile.
const CLOSED_AT_ONCE: usize = 128;

/// The error for an operation on a leased range.
pub(super) fn in_use(leased: &Range) -> Error {
    let message = format!("{leased} is in use: a lease (an IOMMU mapping, usually) holds it");
    Error::new(ErrorCode::VaInUse, message)
}

impl Inner {
    /// Checks a range of the reservation.
    pub(super) fn check(&self, offset: u64, length: u64) -> Result<Range> {
        let range = Range::new(offset, length)?;
        range.check_within(self.length, "the reservation")?;
        range.check_aligned(self.page, "range")?;
        Ok(range)
    }

    /// Locks the state of an open reservation.
    pub(super) fn open_state(&self) -> Result<std::sync::MutexGuard<'_, ReservationState>> {
        let state = lock(&self.state);
        if state.closed {
            return Err(Error::new(ErrorCode::Closed, "the reservation is closed"));
        }
        Ok(state)
    }

    /// The range of the whole reservation.
    pub(super) fn whole(&self) -> Result<Range> {
        Range::new(0, self.length)
    }

    /// Returns the address and size of a checked range.
    pub(super) fn locate(&self, range: &Range) -> Result<(usize, usize)> {
        let address = self.base.checked_add(to_usize(range.start())?);
        let address = address.ok_or_else(|| {
            let message = format!("{range} has no host address");
            Error::new(ErrorCode::OutOfRange, message)
        })?;
        Ok((address, to_usize(range.len())?))
    }

    /// Releases leases of ranges; fast if they are in order.
    pub(super) fn release(&self, ranges: impl Iterator<Item = Range>) {
        let mut state = lock(&self.state);
        let mut near = Position::default();
        for range in joined(ranges) {
            state.extents.release(&range, &mut near);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let extents = std::mem::take(&mut owned(&mut self.state).extents);
        let released_addresses = ReleasedAddresses {
            base: self.base,
            length: self.length,
            extents,
        };
        dropper::drop_memory(released_addresses.memory(), released_addresses);
    }
}
