//! Real virtual machines for tests.
#![allow(clippy::unwrap_used)]

use super::Machine;
use super::slots::PAGE;
use crate::memory::{AddressSpaceReservation, FilePart, HugePages, MemoryFile};
use crate::{Batch, BatchError, MapRequest, MemorySource, Range, Result};

/// Reserves addresses whose first pages are mapped.
pub(super) fn reservation(pages: u64) -> AddressSpaceReservation {
    let space = AddressSpaceReservation::new(20).unwrap();
    let file = MemoryFile::create(pages * PAGE, "guest", HugePages::None).unwrap();
    let part = FilePart {
        offset: 0,
        length: pages * PAGE,
        file_offset: 0,
        file: 0,
        writable: true,
        transparent_huge: false,
    };
    space.map_files(&[file], &[part]).unwrap();
    space
}

/// Maps a range to the reservation from an offset on.
pub(super) fn map(
    machine: &Machine,
    space: &AddressSpaceReservation,
    range: Range,
    offset: u64,
) -> Result<(), BatchError> {
    let request = MapRequest {
        range,
        offset,
        writable: true,
        source: MemorySource::Memory { fault_in: false },
    };
    machine.map(Batch::new(Some(space), vec![], vec![request]).unwrap())
}
