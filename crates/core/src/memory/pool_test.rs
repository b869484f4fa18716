//! Pieces of a pool's file: their offsets, and the release of their memory.
#![allow(clippy::unwrap_used)]

use super::pool::{FILE_LENGTH, FilePool};
use super::{AddressSpaceReservation, MemoryFile};
use crate::host_page_size;
use crate::locked::lock;

fn take(pool: &FilePool, length: u64) -> (MemoryFile, u64) {
    let file = pool.take(length).unwrap();
    let at = file.part_offset();
    (file, at)
}

/// Returns the number of bytes that a file uses.
fn used(file: &MemoryFile) -> u64 {
    let stat = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap());
    u64::try_from(stat.unwrap().st_blocks).unwrap() * 512
}

#[test]
fn pieces_share_one_file_and_are_never_reused() {
    let page = host_page_size().unwrap();
    let pool = FilePool::new("pool");
    let (first, at) = take(&pool, page);
    let (second, after) = take(&pool, 2 * page);
    assert_eq!(
        (at, after, first.fd().unwrap()),
        (0, page, second.fd().unwrap())
    );
    drop(first);
    assert_eq!(take(&pool, page).1, 3 * page);
    let (large, start) = take(&pool, FILE_LENGTH);
    assert_ne!(
        (start, large.fd().unwrap()),
        (3 * page, second.fd().unwrap())
    );
    assert_eq!(
        pool.take(page + 1).unwrap_err().code(),
        crate::ErrorCode::Unaligned
    );
    assert_eq!(
        pool.take(0).unwrap_err().code(),
        crate::ErrorCode::EmptyRange
    );
}

#[test]
fn the_file_closes_with_its_last_piece() {
    let page = host_page_size().unwrap();
    let pool = FilePool::new("pool");
    let (file, _) = take(&pool, page);
    let known = lock(&pool.state).file.clone();
    drop(file.clone());
    assert!(known.upgrade().is_some());
    drop(file);
    assert!(known.upgrade().is_none());
    assert_eq!(take(&pool, page).1, 0);
}

#[test]
fn releases_the_memory_with_the_last_owner_of_a_piece() {
    let page = host_page_size().unwrap();
    let pool = FilePool::new("pool");
    let (other, at_other) = take(&pool, page);
    other.write(at_other, &[1]).unwrap();
    let space = AddressSpaceReservation::new(30).unwrap();
    // The last owner is, in turn: the view, the mapping, a lease of it, the handle.
    for last in 0..4 {
        let (file, at) = take(&pool, page);
        file.write(at, &[7]).unwrap();
        let mut view = Some(file.view(at, page).unwrap());
        space.map_file(0, page, &file, at, true, false).unwrap();
        let mut lease = Some(space.lease(0, page).unwrap());
        let mut file = Some(file);
        assert_eq!(used(&other), 2 * page);
        for step in [1, 2, 3, 0] {
            if (step + last) % 4 == 0 {
                drop(view.take());
            } else if (step + last) % 4 == 1 {
                drop(file.take());
            } else if lease.is_some() {
                assert!(space.unmap(0, page).is_err());
                drop(lease.take());
                assert_eq!(used(&other), 2 * page, "still mapped");
            } else {
                space.unmap(0, page).unwrap();
            }
            assert_eq!(
                used(&other),
                if step == 0 { page } else { 2 * page },
                "{last}/{step}"
            );
        }
    }
    let mut byte = [0];
    other.read(at_other, &mut byte).unwrap();
    assert_eq!(byte, [1]);
}
