//! Failed moves, and failed rollbacks of them: bytes and records stay consistent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::faults::{Call, clear, inject};
use super::{AddressSpaceReservation, HugePages, MemoryFile, PrivateMemory};
use crate::ErrorCode;

const PAGE: u64 = 4096;
const PAGES: u64 = 4;
/// The page at which the memory is mapped.
const AT: u64 = 16;

/// Returns four pages, each a piece of its own, filled with their number plus one.
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

/// Checks that the memory's bytes and the reservation's records agree.
fn check(space: &AddressSpaceReservation, memory: &PrivateMemory, context: &str) {
    let victim = MemoryFile::create(PAGE, "victim", HugePages::None).unwrap();
    for page in 0..PAGES {
        let mut bytes = [0; 4096];
        memory.read(page * PAGE, &mut bytes).unwrap();
        assert_eq!(bytes, [number(page); 4096], "{context}: page {page}");
        let offset = (AT + page) * PAGE;
        if let Ok(lease) = space.lease(offset, PAGE) {
            // A page that the reservation records is that page.
            lease.read(0, &mut bytes).unwrap();
            assert_eq!(
                bytes,
                [number(page); 4096],
                "{context}: page {page} in the reservation"
            );
            continue;
        }
        // A free page is not a page of the memory: a file mapped there receives none of its writes.
        space
            .map_file(offset, PAGE, &victim, 0, true, false)
            .unwrap();
        let _ = memory.write(page * PAGE, &[number(page); 4096]);
        victim.read(0, &mut bytes).unwrap();
        assert_eq!(
            bytes, [0; 4096],
            "{context}: a write to page {page} reached another mapping"
        );
        space.unmap(offset, PAGE).unwrap();
    }
}

/// Without further failures, all pages can be unmapped, mapped again, and written.
fn recover(space: &AddressSpaceReservation, memory: &PrivateMemory, context: &str) {
    space.unmap(0, 64 * PAGE).unwrap();
    check(space, memory, context);
    for page in 0..PAGES {
        memory
            .write(page * PAGE, &[number(page); 4096])
            .unwrap_or_else(|error| unreachable!("{context}: page {page} is read-only: {error}"));
    }
    space
        .map_private(AT * PAGE, PAGES * PAGE, memory, 0)
        .unwrap();
    check(space, memory, context);
    space.unmap(AT * PAGE, PAGES * PAGE).unwrap();
}

#[test]
fn a_failed_map_leaves_no_dangling_address() {
    let space = AddressSpaceReservation::new(32).unwrap();
    let memory = memory(&space);
    let mut still_mapped = 0;
    for moves in 1..1_u32 << 8 {
        for covers in [0, 0b11] {
            let context = format!("moves {moves:#b}, covers {covers:#b}");
            inject(Call::Move, moves);
            inject(Call::Cover, covers);
            let result = space.map_private(AT * PAGE, PAGES * PAGE, &memory, 0);
            clear();
            let placed = (0..PAGES)
                .filter(|page| space.lease((AT + page) * PAGE, PAGE).is_ok())
                .count();
            if let Err(error) = result {
                assert_eq!(error.code(), ErrorCode::System, "{context}: {error}");
                let is_reported = error.message().contains("stays mapped. Unmap it");
                assert_eq!(is_reported, placed > 0, "{context}: {error}");
                still_mapped += usize::from(is_reported);
            } else {
                assert_eq!(placed, 4);
            }
            check(&space, &memory, &context);
            recover(&space, &memory, &context);
        }
    }
    assert!(still_mapped > 100, "{still_mapped}");
}

#[test]
fn a_failed_unmap_leaves_no_dangling_record() {
    let space = AddressSpaceReservation::new(32).unwrap();
    let memory = memory(&space);
    for moves in 1..1_u32 << 8 {
        for covers in [0, 1] {
            let context = format!("moves {moves:#b}, covers {covers:#b}");
            // Two extents: the rollback of the first one's moves can fail independently.
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
                assert!(space.lease(AT * PAGE, PAGE).is_err(), "{context}");
            }
            check(&space, &memory, &context);
            recover(&space, &memory, &context);
        }
    }
}

/// The kernel moves whole page tables only between addresses at the same place in a table. Otherwise it moves single
/// pages.
#[test]
fn memory_mapped_as_a_whole_gets_an_origin_aligned_like_the_mapping() {
    const LENGTH: u64 = 8 << 20;
    let space = AddressSpaceReservation::new(36).unwrap();
    let memory = PrivateMemory::new(LENGTH, false).unwrap();
    memory.write(LENGTH - 1, &[7]).unwrap();
    let origin = || memory.inner.origin_address(0).unwrap();
    let first = origin();
    for at in [3 * PAGE, 5 * PAGE] {
        space.map_private(at, LENGTH, &memory, 0).unwrap();
        let placed = space.host_va(at, LENGTH).unwrap();
        assert_eq!(
            origin() % (2 << 20),
            usize::try_from(placed).unwrap() % (2 << 20)
        );
        space.unmap(at, LENGTH).unwrap();
    }
    assert_ne!(origin(), first);
    let last = origin();
    space.map_private(5 * PAGE, LENGTH, &memory, 0).unwrap();
    space.unmap(5 * PAGE, LENGTH).unwrap();
    assert_eq!(origin(), last);
    // A part alone leaves the rest at the origin.
    space.map_private(PAGE, PAGE, &memory, 0).unwrap();
    assert_eq!(origin(), last);
    let mut byte = [0];
    memory.read(LENGTH - 1, &mut byte).unwrap();
    assert_eq!(byte, [7]);
}
