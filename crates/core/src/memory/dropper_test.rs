//! The dropper unmaps large memory on another thread, after its owner has lost it.
#![allow(clippy::unwrap_used)]

use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use super::faults::{Call, clear, inject};
use super::memory_fd::MemoryFd;
use super::sys::UNMAPS;
use super::{AddressSpaceReservation, HugePages, MemoryFile, PrivateMemory, Window, protection};
use crate::ErrorCode;
use crate::dropper::{Gate, QUEUED, flush};

const MIB: u64 = 1 << 20;
const LARGE: u64 = 64 * MIB;
const PAGE: u64 = 4096;

/// Returns a name that no other test uses, for a file.
fn name(prefix: &str) -> String {
    format!("dropper-{prefix}-{}", std::process::id())
}

/// Returns the number of kernel mappings of a file.
fn mappings_of(file: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(file)).count()
}

fn is_open(fd: RawFd, file: &str) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|to| to.to_string_lossy().contains(file))
}

fn queued() -> usize {
    QUEUED.take()
}

#[test]
fn unmap_moves_a_large_file_away_for_the_dropper_to_unmap() {
    let name = name("placed");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    for at in [0, MIB, 3 << 30] {
        space.map_file(at, LARGE, &file, 0, true, false).unwrap();
        space.ensure_mapped(&[(at, LARGE)]).unwrap();
        file.write(at % LARGE, &[7; 16]).unwrap();
        space.unmap(at, LARGE).unwrap();
        assert_eq!(queued(), 1);
        assert_eq!(
            space.lease(at, PAGE).unwrap_err().code(),
            ErrorCode::VaNotMapped
        );
        // The range is free for another mapping, and the file's bytes are unaffected.
        space
            .map_file(at, PAGE, &file, LARGE - PAGE, true, false)
            .unwrap();
        space.unmap(at, PAGE).unwrap();
        let mut bytes = [0; 16];
        file.read(at % LARGE, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 16]);
        flush();
        assert_eq!(mappings_of(&name), 0);
    }
    // A part of it, and a small file: at once.
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    space.unmap(0, MIB).unwrap();
    assert_eq!(queued(), 0);
    space.close().unwrap();
    assert_eq!(queued(), 1);
    flush();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn unmaps_a_large_file_at_once_if_it_cannot_be_moved() {
    let name = name("stays");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    inject(Call::Move, 1);
    space.unmap(0, LARGE).unwrap();
    clear();
    assert_eq!((queued(), mappings_of(&name)), (0, 0));
}

#[test]
fn a_failed_unmap_keeps_a_large_file_mapped() {
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name("kept"), HugePages::None).unwrap();
    file.write(5, &[9]).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    space.ensure_mapped(&[(0, LARGE)]).unwrap();
    inject(Call::Cover, 1);
    assert_eq!(space.unmap(0, LARGE).unwrap_err().code(), ErrorCode::System);
    clear();
    let lease = space.lease(0, LARGE).unwrap();
    let mut byte = [0];
    lease.read(5, &mut byte).unwrap();
    assert_eq!(byte, [9]);
    flush();
}

#[test]
fn the_dropper_closes_a_large_file() {
    for (written, handed) in [(LARGE, 1), (MIB, 0)] {
        let name = name("closed");
        let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
        file.fault_in(0, written, false).unwrap();
        let fd = file.fd().unwrap();
        let other = file.clone();
        drop(file);
        assert_eq!(queued(), 0, "another handle owns it");
        assert!(is_open(fd, &name));
        drop(other);
        assert_eq!(queued(), handed);
        flush();
        assert!(!is_open(fd, &name));
    }
}

#[test]
fn closes_a_file_of_huge_pages_at_once_so_that_the_next_file_can_use_them() {
    let file = MemoryFile::create(LARGE, &name("huge"), HugePages::None).unwrap();
    file.fault_in(0, LARGE, false).unwrap();
    let copy = |huge| {
        let fd = file.with_fd(|fd| fd.try_clone_to_owned().unwrap()).unwrap();
        MemoryFd::new(fd, huge)
    };
    drop(copy(true));
    assert_eq!(queued(), 0);
    drop(copy(false));
    assert_eq!(queued(), 1);
    flush();
}

#[test]
fn the_dropper_releases_large_private_memory_and_views() {
    let memory = PrivateMemory::new(LARGE, false).unwrap();
    drop(memory);
    assert_eq!(queued(), 1);

    // The last view of a file releases all of it, however small the view.
    let name = name("viewed");
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    let view = file.view(0, PAGE).unwrap();
    drop(file);
    drop(view);
    assert_eq!(queued(), 1);
    flush();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn the_dropper_unmaps_an_unclosed_reservation_with_a_large_file() {
    let name = name("left");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    drop(file);
    drop(space);
    assert_eq!(queued(), 1);
    flush();
    assert_eq!(mappings_of(&name), 0);
}

/// Returns a reservation that is half filled with pieces of one file, none adjoining the next.
fn in_pieces(name: &str) -> AddressSpaceReservation {
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(2 * MIB, name, HugePages::None).unwrap();
    for at in 0..LARGE / MIB {
        space
            .map_file(2 * at * MIB, MIB, &file, 0, true, false)
            .unwrap();
    }
    space
}

#[test]
fn the_dropper_unmaps_a_large_file_in_many_pieces() {
    let name = name("pieces-placed");
    let space = in_pieces(&name);
    space.unmap(0, 8 * MIB).unwrap();
    assert_eq!(queued(), 0);
    space.unmap(0, 2 * LARGE).unwrap();
    assert!(queued() > 0);
    flush();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn the_dropper_unmaps_an_unclosed_reservation_of_many_pieces() {
    let name = name("pieces-left");
    let space = in_pieces(&name);
    UNMAPS.set(0);
    drop(space);
    assert_eq!((UNMAPS.take(), queued()), (0, 1));
    flush();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn private_memory_of_an_unclosed_reservation_keeps_its_bytes() {
    let space = AddressSpaceReservation::new(36).unwrap();
    let memory = PrivateMemory::new(LARGE, false).unwrap();
    space.map_private(MIB, LARGE, &memory, 0).unwrap();
    memory.write(LARGE - 3, &[1, 2, 3]).unwrap();
    drop(space);
    assert_eq!(queued(), 1);
    flush();
    let mut bytes = [0; 3];
    memory.read(LARGE - 3, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3]);
}

#[test]
fn faults_in_large_memory_after_earlier_garbage_is_dropped() {
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name("waits"), HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    let gate = Gate::close();
    // The event loop itself faults in no more than this.
    space.ensure_mapped(&[(0, MIB)]).unwrap();
    file.fault_in(0, MIB, false).unwrap();
    let of_file = file.clone();
    let waiting = [
        thread::spawn(move || space.ensure_mapped(&[(0, LARGE)])),
        thread::spawn(move || of_file.fault_in(0, LARGE, false)),
    ];
    thread::sleep(Duration::from_millis(50));
    let blocks = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap().st_blocks);
    assert_eq!(u64::try_from(blocks.unwrap()).unwrap() * 512, MIB);
    drop(gate);
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn unmaps_an_empty_reservation_in_one_call_whatever_its_length() {
    let file = MemoryFile::create(MIB, &name("little"), HugePages::None).unwrap();
    for closes in [true, false] {
        let space = AddressSpaceReservation::new(44).unwrap();
        space.map_file(0, MIB, &file, 0, true, false).unwrap();
        UNMAPS.set(0);
        if closes {
            space.close().unwrap();
        }
        drop(space);
        assert_eq!((UNMAPS.take(), queued()), (1, 0));
    }
}

#[test]
fn unmaps_a_large_mapping_piece_by_piece() {
    for pages in [1, 4095, 4096, 4097, 25_600] {
        let name = name(&format!("pieces-{pages}"));
        let file = MemoryFile::create(pages * PAGE, &name, HugePages::None).unwrap();
        let length = usize::try_from(pages * PAGE).unwrap();
        let window = file.with_fd(|fd| Window::new(length, protection(true), fd, 0));
        let window = window.unwrap().unwrap();
        assert_eq!(mappings_of(&name), 1);
        drop(window);
        assert_eq!(mappings_of(&name), 0);
    }
}
