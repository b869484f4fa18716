//! A lease of part of a reservation.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::bytes::{ByteSink, ByteSource};
use super::copy::{read_memory, write_memory};
use super::reservation::Inner;
use crate::range::{to_u64, to_usize};
use crate::{Error, ErrorCode, Range, Result};

/// A lease of part of a reservation: while it exists, the mapping and its addresses do not change. An IOMMU mapping
/// holds one until it is unmapped.
#[derive(Debug)]
pub struct Lease {
    reservation: Arc<Inner>,
    range: Range,
}

impl Lease {
    /// Only for the reservation, which has already counted the lease.
    pub(super) const fn new(reservation: Arc<Inner>, range: Range) -> Self {
        Self { reservation, range }
    }

    /// Drops a lease that the reservation has already released.
    fn drop_released(self) {
        let lease = ManuallyDrop::new(self);
        // SAFETY: the lease is not dropped, and not used after this.
        drop(unsafe { std::ptr::read(&raw const lease.reservation) });
    }

    /// The leased part of the reservation.
    #[must_use]
    pub const fn range(&self) -> Range {
        self.range
    }

    /// The offset of the first byte in the reservation.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.range.start()
    }

    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a lease is never of nothing")]
    pub const fn len(&self) -> u64 {
        self.range.len()
    }

    /// Whether this is a lease of `reservation`.
    pub(crate) fn is_of(&self, reservation: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.reservation, reservation)
    }

    /// The address in this process, valid while the lease exists.
    pub(crate) fn host_address(&self) -> u64 {
        to_u64(self.address())
    }

    /// The range was checked before the lease, so the sum does not wrap.
    fn address(&self) -> usize {
        let start = to_usize(self.range.start()).unwrap_or(usize::MAX);
        self.reservation.base.saturating_add(start)
    }

    /// Fills `into`, from `offset` bytes after the start of the lease.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`; `ERR_MEMORY_FAULT` if the memory is missing (a truncated file) or a device's BAR, which
    /// the kernel does not copy.
    pub fn read<'a>(&self, offset: u64, into: impl Into<ByteSink<'a>>) -> Result<()> {
        let into = into.into();
        let Some((address, range)) = self.locate(offset, into.len())? else {
            return Ok(());
        };
        read_memory(address, into, format_args!("reading {range}"))
    }

    /// Writes `from` at `offset` bytes after the start of the lease.
    ///
    /// # Errors
    /// As [`read`](Self::read); `ERR_MEMORY_FAULT` for read-only memory too.
    pub fn write<'a>(&self, offset: u64, from: impl Into<ByteSource<'a>>) -> Result<()> {
        let from = from.into();
        let Some((address, range)) = self.locate(offset, from.len())? else {
            return Ok(());
        };
        write_memory(address, from, format_args!("writing {range}"))
    }

    /// Returns the address of a copy, and its range in the reservation for messages.
    fn locate(&self, offset: u64, length: usize) -> Result<Option<(usize, Range)>> {
        if length == 0 && offset <= self.range.len() {
            return Ok(None);
        }
        let within = Range::new(offset, to_u64(length.max(1)))?;
        within.check_within(self.range.len(), "the lease")?;
        let beyond = || {
            Error::new(
                ErrorCode::OutOfRange,
                format!("{within} of the lease wraps around"),
            )
        };
        let start = self.range.start().checked_add(offset).ok_or_else(beyond)?;
        let address = self
            .address()
            .checked_add(to_usize(offset)?)
            .ok_or_else(beyond)?;
        Ok(Some((address, Range::new(start, within.len())?)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.reservation.release(std::iter::once(self.range));
    }
}

/// Leases to drop together: adjoining leases of one reservation are released at once.
#[derive(Debug, Default)]
pub(crate) struct Leases(Vec<Lease>);

#[cfg(test)]
impl Leases {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<Lease> for Leases {
    fn extend<I: IntoIterator<Item = Lease>>(&mut self, leases: I) {
        self.0.extend(leases);
    }
}

impl FromIterator<Lease> for Leases {
    fn from_iter<I: IntoIterator<Item = Lease>>(leases: I) -> Self {
        Self(leases.into_iter().collect())
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let of_one = |a: &Lease, b: &Lease| Arc::ptr_eq(&a.reservation, &b.reservation);
        for group in self.0.chunk_by(of_one) {
            let ranges = group.iter().map(Lease::range);
            if let Some(first) = group.first() {
                first.reservation.release(ranges);
            }
        }
        self.0.drain(..).for_each(Lease::drop_released);
    }
}
