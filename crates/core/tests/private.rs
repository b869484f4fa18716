//! Private memory, mapped and unmapped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{PAGE, code, page_of, reservation, unmapped_bytes};
use peerdma_core::ErrorCode;
use peerdma_core::memory::{AddressSpaceReservation, PrivateMemory};
use proptest::prelude::*;

/// Returns memory of that many pages, each filled with its number plus one.
fn numbered(pages: u64) -> PrivateMemory {
    let memory = PrivateMemory::new(pages * PAGE, false).unwrap();
    for page in 0..pages {
        memory
            .write(page * PAGE, &page_of(u8::try_from(page + 1).unwrap()))
            .unwrap();
    }
    memory
}

fn bytes_of(memory: &PrivateMemory) -> Vec<u8> {
    let pages = memory.length() / PAGE;
    let byte = |page| {
        let mut bytes = [0; 1];
        memory.read(page * PAGE + 17, &mut bytes).unwrap();
        bytes[0]
    };
    (0..pages).map(byte).collect()
}

fn leased_bytes(space: &AddressSpaceReservation, page: u64, pages: u64) -> Vec<u8> {
    let lease = space.lease(page * PAGE, pages * PAGE).unwrap();
    let mut bytes = vec![0; usize::try_from(pages * PAGE).unwrap()];
    lease.read(0, &mut bytes).unwrap();
    bytes
        .chunks(usize::try_from(PAGE).unwrap())
        .map(|page| page[0])
        .collect()
}

#[test]
fn creating_checks_its_arguments() {
    assert_eq!(code(PrivateMemory::new(0, false)), ErrorCode::EmptyRange);
    assert_eq!(
        code(PrivateMemory::new(PAGE - 1, true)),
        ErrorCode::Unaligned
    );
    assert_eq!(
        code(PrivateMemory::new(1 << 50, true)),
        ErrorCode::AddressSpaceLimit
    );
    let memory = PrivateMemory::new(PAGE, true).unwrap();
    let mut bytes = [1; 8];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 8]);
    assert_eq!(
        code(memory.read(PAGE - 7, &mut bytes)),
        ErrorCode::OutOfRange
    );
    assert_eq!(code(memory.write(u64::MAX, &bytes)), ErrorCode::OutOfRange);
}

#[test]
fn keeps_its_bytes_when_it_is_mapped_elsewhere() {
    let (space, memory) = (reservation(), numbered(8));
    space
        .map_private(16 * PAGE, 4 * PAGE, &memory, 2 * PAGE)
        .unwrap();
    assert_eq!(leased_bytes(&space, 16, 4), [3, 4, 5, 6]);
    assert_eq!(bytes_of(&memory), [1, 2, 3, 4, 5, 6, 7, 8]);
    space
        .lease(17 * PAGE, PAGE)
        .unwrap()
        .write(0, &page_of(40))
        .unwrap();
    memory.write(4 * PAGE, &page_of(50)).unwrap();
    assert_eq!(leased_bytes(&space, 16, 4), [3, 40, 50, 6]);
    // In part, then the rest; then a larger part than before, at another address.
    space.unmap(17 * PAGE, 2 * PAGE).unwrap();
    assert_eq!(bytes_of(&memory), [1, 2, 3, 40, 50, 6, 7, 8]);
    space.unmap(0, 64 * PAGE).unwrap();
    space.map_private(1 << 30, 8 * PAGE, &memory, 0).unwrap();
    assert_eq!(
        leased_bytes(&space, (1 << 30) / PAGE, 8),
        [1, 2, 3, 40, 50, 6, 7, 8]
    );
    space.ensure_mapped(&[(1 << 30, 8 * PAGE)]).unwrap();
    space.unmap(1 << 30, 8 * PAGE).unwrap();
    assert_eq!(bytes_of(&memory), [1, 2, 3, 40, 50, 6, 7, 8]);
}

#[test]
fn rejects_a_second_mapping_of_a_byte() {
    let (space, memory) = (reservation(), numbered(8));
    space.map_private(0, 4 * PAGE, &memory, 2 * PAGE).unwrap();
    for (from, pages) in [(2, 4), (0, 3), (5, 1), (5, 3), (0, 8)] {
        let result = space.map_private(100 * PAGE, pages * PAGE, &memory, from * PAGE);
        assert_eq!(code(result), ErrorCode::Overlap, "{from} {pages}");
    }
    assert_eq!(
        code(space.map_private(3 * PAGE, PAGE, &memory, 0)),
        ErrorCode::Overlap
    );
    assert_eq!(
        code(space.map_private(100 * PAGE, 2 * PAGE, &memory, 7 * PAGE)),
        ErrorCode::OutOfRange
    );
    assert_eq!(
        code(space.map_private(100 * PAGE, PAGE, &memory, 1)),
        ErrorCode::Unaligned
    );
    space.map_private(100 * PAGE, 2 * PAGE, &memory, 0).unwrap();
    space
        .map_private(102 * PAGE, 2 * PAGE, &memory, 6 * PAGE)
        .unwrap();
    assert_eq!(bytes_of(&memory), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(leased_bytes(&space, 100, 4), [1, 2, 7, 8]);
}

#[test]
fn leased_pages_stay_mapped() {
    let (space, memory) = (reservation(), numbered(4));
    space.map_private(0, 4 * PAGE, &memory, 0).unwrap();
    let lease = space.lease(2 * PAGE, PAGE).unwrap();
    assert_eq!(code(space.unmap(0, 4 * PAGE)), ErrorCode::VaInUse);
    assert_eq!(leased_bytes(&space, 0, 4), [1, 2, 3, 4]);
    drop(lease);
}

#[test]
fn outlives_the_reservation() {
    let memory = numbered(6);
    let space = reservation();
    space.map_private(0, 2 * PAGE, &memory, 0).unwrap();
    space
        .map_private(4 * PAGE, 2 * PAGE, &memory, 3 * PAGE)
        .unwrap();
    drop(space);
    assert_eq!(bytes_of(&memory), [1, 2, 3, 4, 5, 6]);
    let space = reservation();
    space.map_private(0, 6 * PAGE, &memory, 0).unwrap();
    space.close().unwrap();
    memory.write(0, &page_of(9)).unwrap();
    assert_eq!(bytes_of(&memory), [9, 2, 3, 4, 5, 6]);
}

#[test]
fn a_mapping_keeps_the_memory_after_the_last_handle() {
    let space = reservation();
    space.map_private(0, 2 * PAGE, &numbered(2), 0).unwrap();
    assert_eq!(leased_bytes(&space, 0, 2), [1, 2]);
}

#[derive(Debug, Clone)]
enum Step {
    Place { at: u64, from: u64, pages: u64 },
    Unmap { at: u64, pages: u64 },
    Write { page: u64, byte: u8 },
}

const MEMORY: u64 = 12;
const SPACE: u64 = 24;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..SPACE, 0..MEMORY, 1_u64..8).prop_map(|(at, from, pages)| Step::Place { at, from, pages }),
        2 => (0..SPACE, 1_u64..10).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        2 => (0..MEMORY, any::<u8>()).prop_map(|(page, byte)| Step::Write { page, byte }),
    ]
}

proptest! {
    /// Compares with a model: the address and contents of each page.
    #[test]
    fn matches_a_model(steps in prop::collection::vec(step(), 1..60)) {
        let (space, memory) = (reservation(), numbered(MEMORY));
        let mut content: Vec<u8> = (1..=u8::try_from(MEMORY).unwrap()).collect();
        let mut places: Vec<Option<u64>> = vec![None; usize::try_from(SPACE + 8).unwrap()];
        let index = |page: u64| usize::try_from(page).unwrap();
        for step in steps {
            match step {
                Step::Place { at, from, pages } => {
                    let result = space.map_private(at * PAGE, pages * PAGE, &memory, from * PAGE);
                    let free = (at..at + pages).all(|page| places[index(page)].is_none());
                    let is_unmapped = !places.iter().flatten().any(|page| (from..from + pages).contains(page));
                    prop_assert_eq!(result.is_ok(), free && is_unmapped && from + pages <= MEMORY);
                    if result.is_ok() {
                        for page in 0..pages { places[index(at + page)] = Some(from + page); }
                    }
                }
                Step::Unmap { at, pages } => {
                    space.unmap(at * PAGE, pages * PAGE).unwrap();
                    for page in at..(at + pages).min(SPACE + 8) { places[index(page)] = None; }
                }
                Step::Write { page, byte } => {
                    memory.write(page * PAGE, &page_of(byte)).unwrap();
                    content[index(page)] = byte;
                }
            }
            prop_assert_eq!(bytes_of(&memory), content.clone());
            for (at, place) in (0..).zip(&places) {
                match place {
                    Some(page) => prop_assert_eq!(leased_bytes(&space, at, 1), [content[index(*page)]]),
                    None => prop_assert!(space.lease(at * PAGE, PAGE).is_err()),
                }
            }
        }
        let base = space.host_va(0, 1).unwrap();
        prop_assert_eq!(unmapped_bytes(base, base + space.length()), 0);
    }
}
