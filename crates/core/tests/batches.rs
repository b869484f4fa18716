//! Batches of file mappings, and leases of their ranges.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod common;

use common::{PAGE, code, file, page_of, reservation};
use peerdma_core::memory::{FilePart, MemoryFile};
use peerdma_core::{Batch, ErrorCode, MapRequest, MemorySource, Range};

fn part(page: u64, file_page: u64, pages: u64) -> FilePart {
    FilePart {
        offset: page * PAGE,
        length: pages * PAGE,
        file_offset: file_page * PAGE,
        file: 0,
        writable: true,
        transparent_huge: false,
    }
}

/// Returns the number of this process's mappings of a file.
fn mappings_of(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn contiguous_parts_become_one_kernel_mapping() {
    let (space, file) = (reservation(), file(16));
    for page in 0..16 {
        file.write(page * PAGE, &page_of(page as u8)).unwrap();
    }
    let name = "memfd:neighbours";
    let ours = MemoryFile::create(
        16 * PAGE,
        "neighbours",
        peerdma_core::memory::HugePages::None,
    );
    let ours = ours.unwrap();
    let before = mappings_of(name);
    let parts: Vec<FilePart> = (0..8).map(|page| part(page, page, 1)).collect();
    let files = [ours];
    space.map_files(&files, &parts).unwrap();
    assert_eq!(mappings_of(name), before + 1);
    // In reverse order in the file, and apart.
    let parts: Vec<FilePart> = (0..4).map(|page| part(20 + page, 15 - page, 1)).collect();
    space.map_files(&files, &parts).unwrap();
    assert_eq!(mappings_of(name), before + 5);
    // Each part can still be unmapped by itself.
    space.unmap(3 * PAGE, PAGE).unwrap();
    assert_eq!(
        code(space.lease(2 * PAGE, 3 * PAGE)),
        ErrorCode::VaNotMapped
    );
    drop(space.lease(4 * PAGE, PAGE).unwrap());
    drop(file);
}

#[test]
fn a_batch_ends_at_the_part_that_cannot_be_mapped() {
    let (space, file) = (reservation(), file(4));
    let parts = [
        part(0, 0, 1),
        part(4, 1, 1),
        part(8, 3, 2), // past the end of the file
        part(12, 2, 1),
    ];
    let (index, error) = space
        .map_files(std::slice::from_ref(&file), &parts)
        .unwrap_err();
    assert_eq!((index, error.code()), (2, ErrorCode::OutOfRange));
    for (page, mapped) in [(0, true), (4, true), (8, false), (12, false)] {
        assert_eq!(space.lease(page * PAGE, PAGE).is_ok(), mapped, "{page}");
    }
    // If one of several contiguous parts overlaps a mapping, none is mapped.
    let (index, error) = space
        .map_files(
            std::slice::from_ref(&file),
            &[part(2, 1, 1), part(3, 2, 1), part(4, 3, 1)],
        )
        .unwrap_err();
    assert_eq!((index, error.code()), (0, ErrorCode::Overlap));
    assert!(space.lease(2 * PAGE, PAGE).is_err());
}

#[test]
fn leases_of_a_range_and_of_its_parts_each_hold_the_memory() {
    let (space, file) = (reservation(), file(8));
    space
        .map_files(std::slice::from_ref(&file), &[part(0, 0, 4), part(4, 4, 4)])
        .unwrap();
    let whole = space.lease(0, 4 * PAGE).unwrap();
    let again = space.lease(0, 4 * PAGE).unwrap();
    let inside = space.lease(PAGE, PAGE).unwrap();
    let across = space.lease(3 * PAGE, 2 * PAGE).unwrap();
    let held = |page: u64| code(space.unmap(page * PAGE, PAGE)) == ErrorCode::VaInUse;
    assert!((0..5).all(held));
    space.unmap(6 * PAGE, 2 * PAGE).unwrap();
    drop(whole);
    assert!((0..4).all(held), "leased twice");
    drop(again);
    assert!(held(1) && held(3) && held(4));
    space.unmap(0, PAGE).unwrap();
    drop((inside, across));
    space.unmap(0, 8 * PAGE).unwrap();
}

#[test]
fn a_closed_reservation_rejects_leases_and_a_leased_one_rejects_close() {
    let (space, file) = (reservation(), file(300));
    let parts: Vec<FilePart> = (0..300).map(|page| part(2 * page, 299 - page, 1)).collect();
    space.map_files(&[file], &parts).unwrap();
    let lease = space.lease(598 * PAGE, PAGE).unwrap();
    assert_eq!(code(space.close()), ErrorCode::VaInUse);
    drop(space.lease(0, PAGE).unwrap()); // nothing was unmapped
    drop(lease);
    space.close().unwrap();
    assert_eq!(code(space.lease(0, PAGE)), ErrorCode::Closed);
    space.close().unwrap();
}

fn request(page: u64, pages: u64, source: MemorySource) -> MapRequest {
    MapRequest {
        range: Range::new(page * PAGE, pages * PAGE).unwrap(),
        offset: page * PAGE,
        source,
        writable: true,
    }
}

const MEMORY: MemorySource = MemorySource::Memory { fault_in: false };

#[test]
fn a_batch_leases_its_memory_until_it_is_dropped() {
    let (space, file) = (reservation(), file(8));
    space
        .map_files(std::slice::from_ref(&file), &[part(0, 0, 8)])
        .unwrap();
    // Adjoining, apart, twice the same, and in reverse order.
    let memory = [(0, 1), (1, 1), (4, 1), (4, 1), (3, 1)];
    let mut requests: Vec<MapRequest> = memory
        .map(|(page, pages)| request(page, pages, MEMORY))
        .to_vec();
    requests.push(request(6, 1, MemorySource::File(0)));
    let batch = Batch::new(Some(&space), vec![file], requests).unwrap();
    let held = [0, 1, 2, 3, 4, 5, 6].map(|page| space.unmap(page * PAGE, PAGE).is_err());
    assert_eq!(held, [true, true, false, true, true, false, false]);
    drop(batch);
    space.unmap(0, 8 * PAGE).unwrap();
}

#[test]
fn a_rejected_batch_holds_no_lease() {
    let (space, file) = (reservation(), file(8));
    space
        .map_files(std::slice::from_ref(&file), &[part(0, 0, 2), part(4, 4, 2)])
        .unwrap();
    let refused = |requests: &[MapRequest]| {
        let batch = Batch::new(Some(&space), vec![file.clone()], requests.to_vec());
        batch.unwrap_err()
    };
    let error = refused(&[request(0, 1, MEMORY), request(1, 2, MEMORY)]);
    assert_eq!(error.code(), ErrorCode::VaNotMapped);
    let message = error.message();
    assert!(
        message.starts_with("0x1000..0x3000 is not mapped throughout: 0x2000..0x3000 is unmapped"),
        "{message}"
    );
    let error = refused(&[
        request(0, 1, MEMORY),
        request(4, 3, MemorySource::Memory { fault_in: true }),
    ]);
    assert_eq!(error.code(), ErrorCode::VaNotMapped);
    assert!(
        error.message().contains("0x6000..0x7000 is unmapped"),
        "{error}"
    );
    let beyond = MapRequest {
        offset: space.length(),
        ..request(0, 1, MEMORY)
    };
    assert_eq!(
        refused(&[request(0, 1, MEMORY), beyond]).code(),
        ErrorCode::OutOfRange
    );
    let without = Batch::new(None, vec![file.clone()], vec![request(0, 1, MEMORY)]);
    assert_eq!(without.unwrap_err().code(), ErrorCode::InvalidArgument);
    space.unmap(0, 8 * PAGE).unwrap();
}
