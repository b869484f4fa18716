//! Moves that fail, and whose undoing fails: whatever happens, bytes and records stay true.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::faults::{Call, clear, inject};
use super::{AddressSpaceReservation, HugePages, MemoryFile, PrivateMemory};
use crate::ErrorCode;

const PAGE: u64 = 4096;
const PAGES: u64 = 4;
/// Where the memory is to be placed, in pages.
const AT: u64 = 16;

/// Four pages, each a piece of its own, full of their number plus one.
fn memory(space: &AddressSpaceReservation) -> PrivateMemory {
    let memory = PrivateMemory::new(PAGES * PAGE, false).unwrap();
    for page in 0..PAGES {
        memory.write(page * PAGE, &[number(page); 4096]).unwrap();
        space.map_private(0, PAGE, &memory, page * PAGE).unwrap();
        space.unmap(0, PAGE).unwrap();
    }
    memory
}

fn number(page: u64) -> u8 {
    u8::try_from(page + 1).unwrap()
}

/// Everything the memory's bytes and the reservation's records can say about each other.
fn check(space: &AddressSpaceReservation, memory: &PrivateMemory, what: &str) {
    let victim = MemoryFile::create(PAGE, "victim", HugePages::None).unwrap();
    for page in 0..PAGES {
        let mut bytes = [0; 4096];
        memory.read(page * PAGE, &mut bytes).unwrap();
        assert_eq!(bytes, [number(page); 4096], "{what}: page {page}");
        let offset = (AT + page) * PAGE;
        if let Ok(lease) = space.lease(offset, PAGE) {
            // What the reservation says is placed there is that page.
            lease.read(0, &mut bytes).unwrap();
            assert_eq!(bytes, [number(page); 4096], "{what}: page {page} in place");
            continue;
        }
        // What it says is free is no page of the memory: another file there sees none of its writes.
        space
            .map_file(offset, PAGE, &victim, 0, true, false)
            .unwrap();
        let _ = memory.write(page * PAGE, &[number(page); 4096]);
        victim.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096], "{what}: page {page} went elsewhere");
        space.unmap(offset, PAGE).unwrap();
    }
}

/// With no more faults everything can be taken out, placed anew and written to.
fn recover(space: &AddressSpaceReservation, memory: &PrivateMemory, what: &str) {
    space.unmap(0, 64 * PAGE).unwrap();
    check(space, memory, what);
    for page in 0..PAGES {
        memory
            .write(page * PAGE, &[number(page); 4096])
            .unwrap_or_else(|error| unreachable!("{what}: page {page} is read-only: {error}"));
    }
    space
        .map_private(AT * PAGE, PAGES * PAGE, memory, 0)
        .unwrap();
    check(space, memory, what);
    space.unmap(AT * PAGE, PAGES * PAGE).unwrap();
}

#[test]
fn a_failed_placement_leaves_no_dangling_address() {
    let space = AddressSpaceReservation::new(32).unwrap();
    let memory = memory(&space);
    let mut stuck = 0;
    for moves in 1..1_u32 << 8 {
        for covers in [0, 0b11] {
            let what = format!("moves {moves:#b}, covers {covers:#b}");
            inject(Call::Move, moves);
            inject(Call::Cover, covers);
            let result = space.map_private(AT * PAGE, PAGES * PAGE, &memory, 0);
            clear();
            let placed = (0..PAGES)
                .filter(|page| space.lease((AT + page) * PAGE, PAGE).is_ok())
                .count();
            if let Err(error) = result {
                assert_eq!(error.code(), ErrorCode::System, "{what}: {error}");
                let told = error
                    .message()
                    .contains("stays mapped until it is unmapped");
                assert_eq!(told, placed > 0, "{what}: {error}");
                stuck += usize::from(told);
            } else {
                assert_eq!(placed, 4);
            }
            check(&space, &memory, &what);
            recover(&space, &memory, &what);
        }
    }
    assert!(stuck > 100, "{stuck}");
}

#[test]
fn a_failed_unmapping_leaves_no_dangling_record() {
    let space = AddressSpaceReservation::new(32).unwrap();
    let memory = memory(&space);
    for moves in 1..1_u32 << 8 {
        for covers in [0, 1] {
            let what = format!("moves {moves:#b}, covers {covers:#b}");
            // Two extents: the undoing of the first one's moves fails in its own way.
            for first in [0, 2] {
                space
                    .map_private((AT + first) * PAGE, 2 * PAGE, &memory, first * PAGE)
                    .unwrap();
            }
            inject(Call::Move, moves);
            inject(Call::Cover, covers);
            let result = space.unmap(AT * PAGE, PAGES * PAGE);
            clear();
            if result.is_ok() {
                assert!(space.lease(AT * PAGE, PAGE).is_err(), "{what}");
            }
            check(&space, &memory, &what);
            recover(&space, &memory, &what);
        }
    }
}

/// Whole page tables move, and not page by page, only between addresses that are at the same place in a table.
#[test]
fn memory_that_was_placed_as_a_whole_has_a_home_like_its_place() {
    const LENGTH: u64 = 8 << 20;
    let space = AddressSpaceReservation::new(36).unwrap();
    let memory = PrivateMemory::new(LENGTH, false).unwrap();
    memory.write(LENGTH - 1, &[7]).unwrap();
    let home = || memory.inner.at_home(0).unwrap();
    let first = home();
    for at in [3 * PAGE, 5 * PAGE] {
        space.map_private(at, LENGTH, &memory, 0).unwrap();
        let placed = space.host_va(at, LENGTH).unwrap();
        assert_eq!(
            home() % (2 << 20),
            usize::try_from(placed).unwrap() % (2 << 20)
        );
        space.unmap(at, LENGTH).unwrap();
    }
    assert_ne!(home(), first);
    let last = home();
    space.map_private(5 * PAGE, LENGTH, &memory, 0).unwrap();
    space.unmap(5 * PAGE, LENGTH).unwrap();
    assert_eq!(home(), last);
    // A part alone leaves the rest at home.
    space.map_private(PAGE, PAGE, &memory, 0).unwrap();
    assert_eq!(home(), last);
    let mut byte = [0];
    memory.read(LENGTH - 1, &mut byte).unwrap();
    assert_eq!(byte, [7]);
}
