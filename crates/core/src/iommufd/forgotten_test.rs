//! Address spaces that nobody closes: the dropper's thread unmaps and destroys them.
#![allow(clippy::unwrap_used)]

use super::context::Iommufd;
use super::ioas::Ioas;
use crate::batch::{Batch, MapRequest, Source};
use crate::dropper::{Gate, HANDED_OVER, settle};
use crate::fake_kernel::{self, Call};
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};

const PAGE: u64 = 0x1000;

/// An address space with a mapping, and the memory that is mapped.
fn scene() -> (Ioas, AddressSpaceReservation) {
    let memory = AddressSpaceReservation::new(32).unwrap();
    let file = MemoryFile::create(PAGE, "ram", HugePages::None).unwrap();
    memory.map_file(0, PAGE, &file, 0, true, false).unwrap();
    let ioas = Ioas::with_id(&Iommufd::fake(), 1);
    let request = MapRequest {
        range: crate::Range::new(0, PAGE).unwrap(),
        offset: 0,
        source: Source::Memory { fault_in: false },
        writable: true,
    };
    let batch = Batch::new(Some(&memory), vec![], vec![request]).unwrap();
    fake_kernel::expect([(Call::IoasMap, Ok(0))]);
    ioas.map(batch).unwrap();
    HANDED_OVER.take();
    (ioas, memory)
}

#[test]
fn the_dropper_unmaps_a_forgotten_address_space_and_destroys_it() {
    let (ioas, memory) = scene();
    let gate = Gate::close();
    fake_kernel::expect([(Call::IoasUnmap, Ok(PAGE)), (Call::Destroy, Ok(0))]);
    drop(ioas);
    assert_eq!(fake_kernel::unused(), 2, "nothing is called here");
    drop(gate);
    settle();
    assert_eq!(fake_kernel::unused(), 0);
    memory.unmap(0, PAGE).unwrap();
}

#[test]
fn a_destroyed_address_space_leaves_nothing_to_the_dropper() {
    let (ioas, memory) = scene();
    fake_kernel::expect([(Call::Destroy, Ok(0))]);
    ioas.close().unwrap();
    drop(ioas);
    assert_eq!((HANDED_OVER.take(), fake_kernel::unused()), (0, 0));
    memory.unmap(0, PAGE).unwrap();
}
