//! The remains of a reservation after its last handle and its last lease.

use super::extent::{Extent, ExtentMap, Source};
use super::{budget, sys};
use crate::Range;
use crate::range::{to_u64, to_usize};

/// The addresses of a reservation, which are unmapped when this is dropped. Nobody can name them any more.
#[derive(Debug)]
pub(super) struct Unclosed {
    pub(super) base: usize,
    pub(super) length: u64,
    pub(super) extents: ExtentMap,
}

impl Unclosed {
    /// Bytes of memory that are placed there, which take long to unmap.
    pub(super) fn memory(&self) -> u64 {
        self.extents
            .iter()
            .filter(|extent| !extent.is_device())
            .fold(0, |sum, extent| sum.saturating_add(extent.range.len()))
    }

    /// Unmaps from one offset to another by `unmap`.
    fn unmap(&self, from: u64, to: u64, unmap: unsafe fn(usize, usize) -> nix::Result<()>) {
        let range = Range::between(from, to);
        let place = range.and_then(|range| {
            let address = self.base.checked_add(to_usize(range.start()).ok()?)?;
            Some((address, to_usize(range.len()).ok()?))
        });
        if let Some((address, size)) = place {
            // SAFETY: the addresses are ours, each is unmapped but once, and nobody relies on them. The kernel refuses
            // only when it has no memory left for its own records: the addresses leak then.
            let _ = unsafe { unmap(address, size) };
        }
    }
}

impl Drop for Unclosed {
    fn drop(&mut self) {
        let whole = Range::new(0, self.length);
        let (go, come) = whole
            .as_ref()
            .map_or((0, 0), |all| self.extents.cost_of_emptying(all, all));
        let extents = whole.map_or_else(|_| Vec::new(), |all| self.extents.parts_in(&all));
        let mut leaks = false;
        // From the end to the start. Another thread may map something where this has unmapped, so nothing is unmapped
        // twice.
        let mut end = self.length;
        let mut bytes = 0_u64;
        for extent in extents.iter().rev() {
            let (first, last) = (extent.range.start(), extent.range.end());
            if !comes_home(extent) {
                // The memory has its pages here. The addresses are leaked, so that it may go on using them.
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
            budget::credit(go.saturating_sub(come).saturating_add(1));
        }
    }
}

/// Moves private memory home. Returns whether nothing of the extent is needed at its place any more.
fn comes_home(extent: &Extent) -> bool {
    let Source::Private(memory, offset) = &extent.source else {
        return true;
    };
    let part = Range::new(*offset, extent.range.len());
    // SAFETY: the extent's addresses are the reservation's, of which nothing is left that could use them.
    part.and_then(|part| unsafe { memory.take_home(&part) })
        .is_ok()
}
