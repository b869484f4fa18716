//! The budget of `vm.max_map_count` in a real process. This file is a process of its own, with one test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::Instant;

use common::{PAGE, code, failure, file, reservation};
use peerdma_core::ErrorCode;
use peerdma_core::memory::PrivateMemory;

fn mappings() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    u64::try_from(maps.lines().count()).unwrap()
}

#[test]
fn stops_at_three_quarters_of_what_the_kernel_allows() {
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let allowed: u64 = allowed.trim().parse().unwrap();
    if allowed > 200_000 {
        eprintln!("skipped: a vm.max_map_count of {allowed} takes too long to fill");
        return;
    }
    let limit = allowed - allowed / 4;

    // Adjoining mappings are one kernel mapping, whatever the number of calls; and mapping stays fast.
    let (space, pages) = (reservation(), 100_000);
    let backing = file(pages);
    let began = Instant::now();
    for page in 0..pages {
        space
            .map_file(page * PAGE, PAGE, &backing, page * PAGE, true, false)
            .unwrap();
    }
    eprintln!("{pages} adjoining mappings took {:?}", began.elapsed());
    assert!(mappings() < 1_000, "{}", mappings());
    // Holes split it into many. Only a count reveals their number.
    let refused = (0..pages)
        .filter(|page| page % 2 == 1)
        .find_map(|page| space.unmap(page * PAGE, PAGE).err());
    let error = refused.unwrap();
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::MappingLimit, None)
    );
    let present = mappings();
    assert!(present.abs_diff(limit) < 100, "{present}");
    for part in [
        limit.to_string(),
        allowed.to_string(),
        "unmapping 0x".into(),
    ] {
        assert!(error.message().contains(&part), "{error}");
    }
    // There is no budget for other mappings or for moving private memory either.
    let other = common::reservation;
    assert!(std::panic::catch_unwind(other).is_err());
    assert_eq!(
        code(PrivateMemory::new(PAGE, false)),
        ErrorCode::MappingLimit
    );
    // Operations that reduce the number succeed: unmapping a page between two holes, then all of it, at once.
    space.unmap(2 * PAGE, PAGE).unwrap();
    space.unmap(0, 1 << 30).unwrap();
    assert!(mappings() < 1_000, "{}", mappings());

    // Scattered pages, of files and of private memory.
    let memory = PrivateMemory::new(64 * PAGE, false).unwrap();
    for page in (0..64).step_by(2) {
        space
            .map_private((1 << 30) + page * PAGE, PAGE, &memory, page * PAGE)
            .unwrap();
    }
    let began = Instant::now();
    let scattered = (0..).find(|page| {
        let result = space.map_file(2 * page * PAGE, PAGE, &backing, 0, true, false);
        let refused = result.is_err();
        if refused {
            assert_eq!(failure(result).code(), ErrorCode::MappingLimit);
        }
        refused
    });
    let scattered = scattered.unwrap();
    eprintln!("{scattered} scattered mappings took {:?}", began.elapsed());
    let present = mappings();
    assert!(present.abs_diff(limit) < 100, "{present}");
    assert!(scattered > limit / 2 - 1_000, "{scattered}");
    let began = Instant::now();
    for _ in 0..1_000 {
        let result = space.map_private(1 << 31, PAGE, &memory, PAGE);
        assert_eq!(code(result), ErrorCode::MappingLimit);
    }
    eprintln!("1000 refusals took {:?}", began.elapsed());
    // Alternating unmap and map requires no budget.
    for page in 0..1_000 {
        space.unmap(2 * page * PAGE, PAGE).unwrap();
        space
            .map_file(2 * page * PAGE, PAGE, &backing, 0, true, false)
            .unwrap();
    }
    // Private memory can be unmapped as a whole, which releases its budget.
    space.unmap(1 << 30, 64 * PAGE).unwrap();
    space.map_private(1 << 31, PAGE, &memory, 0).unwrap();
    space.close().unwrap();
    assert!(mappings() < 1_000, "{}", mappings());
}
