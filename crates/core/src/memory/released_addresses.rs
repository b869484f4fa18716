//! The addresses of a reservation after its last handle and its last lease.

use super::extent::{Extent, ExtentMap, ExtentSource};
use super::{budget, sys};
use crate::Range;
use crate::range::{to_u64, to_usize};

/// The addresses of a reservation, to unmap on drop. Nobody can refer to them any more.
#[derive(Debug)]
pub(super) struct ReleasedAddresses {
    pub(super) base: usize,
    pub(super) length: u64,
    pub(super) extents: ExtentMap,
}

impl ReleasedAddresses {
    /// Returns the bytes of mapped memory, which determine the time to unmap it.
    pub(super) fn memory(&self) -> u64 {
        self.extents
            .iter()
            .filter(|extent| !extent.is_device())
            .fold(0, |sum, extent| sum.saturating_add(extent.range.len()))
    }

    /// Unmaps the offsets `from..to` with `unmap`.
    fn unmap(&self, from: u64, to: u64, unmap: unsafe fn(usize, usize) -> nix::Result<()>) {
        let range = Range::between(from, to);
        let place = range.and_then(|range| {
            let address = self.base.checked_add(to_usize(range.start()).ok()?)?;
            Some((address, to_usize(range.len()).ok()?))
        });
        if let Some((address, size)) = place {
            // SAFETY: the addresses are ours, each is unmapped only once, and nobody relies on them. The kernel
            // refuses only when it has no memory for its own records: the addresses leak then.
            let _ = unsafe { unmap(address, size) };
        }
    }
}

impl Drop for ReleasedAddresses {
    fn drop(&mut self) {
        let whole = Range::new(0, self.length);
        let (removed, added) = whole
            .as_ref()
            .map_or((0, 0), |all| self.extents.cost_of_emptying(all, all));
        let extents = whole.map_or_else(|_| Vec::new(), |all| self.extents.parts_in(&all));
        let mut leaks = false;
        // From the end to the start. Another thread can map memory in an unmapped range, so no range is unmapped
        // twice.
        let mut end = self.length;
        let mut bytes = 0_u64;
        for extent in extents.iter().rev() {
            let (first, last) = (extent.range.start(), extent.range.end());
            if !returned_to_origin(extent) {
                // The memory has its pages here. Leaks the addresses, so that the memory can still use them.
                self.unmap(last, end, sys::unmap);
                (leaks, end, bytes) = (true, first, 0);
            } else if extent.range.len() > to_u64(sys::PIECE) {
                self.unmap(last, end, sys::unmap);
                self.unmap(first, last, sys::unmap_in_pieces);
                (end, bytes) = (first, 0);
            } else {
                bytes = bytes.saturating_add(extent.range.len());
                if bytes >= to_u64(sys::PIECE) {
                    self.unmap(first, end, sys::unmap);
                    (end, bytes) = (first, 0);
                }
            }
        }
        self.unmap(0, end, sys::unmap);
        if !leaks {
            budget::credit(removed.saturating_sub(added).saturating_add(1));
        }
    }
}

/// Moves private memory back to its origin. Returns whether the extent's addresses are unused now.
fn returned_to_origin(extent: &Extent) -> bool {
    let ExtentSource::Private(memory, offset) = &extent.source else {
        return true;
    };
    let part = Range::new(*offset, extent.range.len());
    // SAFETY: the extent's addresses are the reservation's, and no user of the reservation is left.
    part.and_then(|part| unsafe { memory.return_to_origin(&part) })
        .is_ok()
}
