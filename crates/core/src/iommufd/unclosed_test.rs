//! The dropper's thread unmaps and destroys address spaces that nobody closes.
#![allow(clippy::unwrap_used)]

use super::context::Iommufd;
use super::ioas::Ioas;
use crate::batch::{Batch, MapRequest, MemorySource};
use crate::dropper::{Gate, QUEUED, flush};
use crate::fake_kernel::{self, Call};
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};

const PAGE: u64 = 0x1000;

/// Returns an address space with a mapping, and the mapped memory.
fn fixture() -> (Ioas, AddressSpaceReservation) {
    let memory = AddressSpaceReservation::new(32).unwrap();
    let file = MemoryFile::create(PAGE, "ram", HugePages::None).unwrap();
    memory.map_file(0, PAGE, &file, 0, true, false).unwrap();
    let ioas = Ioas::with_id(&Iommufd::fake(), 1);
    let request = MapRequest {
        range: crate::Range::new(0, PAGE).unwrap(),
        offset: 0,
        source: MemorySource::Memory { fault_in: false },
        writable: true,
    };
    let batch = Batch::new(Some(&memory), vec![], vec![request]).unwrap();
    fake_kernel::expect([(Call::IoasMap, Ok(0))]);
    ioas.map(batch).unwrap();
    QUEUED.take();
    (ioas, memory)
}

#[test]
fn the_dropper_unmaps_and_destroys_an_unclosed_address_space() {
    let (ioas, memory) = fixture();
    let gate = Gate::close();
    fake_kernel::expect([(Call::IoasUnmap, Ok(PAGE)), (Call::Destroy, Ok(0))]);
    drop(ioas);
    assert_eq!(fake_kernel::unused(), 2, "the drop itself makes no call");
    drop(gate);
    flush();
    assert_eq!(fake_kernel::unused(), 0);
    memory.unmap(0, PAGE).unwrap();
}

#[test]
fn a_destroyed_address_space_queues_nothing_for_the_dropper() {
    let (ioas, memory) = fixture();
    fake_kernel::expect([(Call::Destroy, Ok(0))]);
    ioas.close().unwrap();
    drop(ioas);
    assert_eq!((QUEUED.take(), fake_kernel::unused()), (0, 0));
    memory.unmap(0, PAGE).unwrap();
}
