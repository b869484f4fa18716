//! Large memory is given back on another thread, and is gone for its owner at once.
#![allow(clippy::unwrap_used)]

use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use super::faults::{Call, clear, inject};
use super::memory_fd::MemoryFd;
use super::sys::UNMAPS;
use super::{AddressSpaceReservation, HugePages, MemoryFile, PrivateMemory, Window, protection};
use crate::ErrorCode;
use crate::dropper::{Gate, HANDED_OVER, settle};

const MIB: u64 = 1 << 20;
const LARGE: u64 = 64 * MIB;
const PAGE: u64 = 4096;

/// A number that no other test has, for the names of files.
fn name(what: &str) -> String {
    format!("dropper-{what}-{}", std::process::id())
}

/// The kernel mappings of a file.
fn mappings_of(file: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(file)).count()
}

fn is_open(fd: RawFd, file: &str) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|to| to.to_string_lossy().contains(file))
}

fn handed_over() -> usize {
    HANDED_OVER.take()
}

#[test]
fn a_large_file_leaves_a_reservation_at_once_and_is_unmapped_by_the_dropper() {
    let name = name("placed");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    for at in [0, MIB, 3 << 30] {
        space.map_file(at, LARGE, &file, 0, true, false).unwrap();
        space.ensure_mapped(&[(at, LARGE)]).unwrap();
        file.write(at % LARGE, &[7; 16]).unwrap();
        space.unmap(at, LARGE).unwrap();
        assert_eq!(handed_over(), 1);
        assert_eq!(
            space.lease(at, PAGE).unwrap_err().code(),
            ErrorCode::VaNotMapped
        );
        // The place is free for something else, and the file's bytes are its own.
        space
            .map_file(at, PAGE, &file, LARGE - PAGE, true, false)
            .unwrap();
        space.unmap(at, PAGE).unwrap();
        let mut bytes = [0; 16];
        file.read(at % LARGE, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 16]);
        settle();
        assert_eq!(mappings_of(&name), 0);
    }
    // Part of it, and a small one: at once.
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    space.unmap(0, MIB).unwrap();
    assert_eq!(handed_over(), 0);
    space.close().unwrap();
    assert_eq!(handed_over(), 1);
    settle();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn a_large_file_that_cannot_be_moved_is_unmapped_at_once() {
    let name = name("stays");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    inject(Call::Move, 1);
    space.unmap(0, LARGE).unwrap();
    clear();
    assert_eq!((handed_over(), mappings_of(&name)), (0, 0));
}

#[test]
fn a_failed_unmap_leaves_a_large_file_where_it_was() {
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
    settle();
}

#[test]
fn the_last_close_of_a_large_file_is_left_to_the_dropper() {
    for (written, handed) in [(LARGE, 1), (MIB, 0)] {
        let name = name("closed");
        let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
        file.fault_in(0, written, false).unwrap();
        let fd = file.fd().unwrap();
        let other = file.clone();
        drop(file);
        assert_eq!(handed_over(), 0, "another handle has it");
        assert!(is_open(fd, &name));
        drop(other);
        assert_eq!(handed_over(), handed);
        settle();
        assert!(!is_open(fd, &name));
    }
}

#[test]
fn a_file_of_huge_pages_is_closed_at_once_so_that_the_next_file_can_have_them() {
    let file = MemoryFile::create(LARGE, &name("huge"), HugePages::None).unwrap();
    file.fault_in(0, LARGE, false).unwrap();
    let copy = |huge| {
        let fd = file.with_fd(|fd| fd.try_clone_to_owned().unwrap()).unwrap();
        MemoryFd::new(fd, huge)
    };
    drop(copy(true));
    assert_eq!(handed_over(), 0);
    drop(copy(false));
    assert_eq!(handed_over(), 1);
    settle();
}

#[test]
fn large_private_memory_and_views_are_left_to_the_dropper() {
    let memory = PrivateMemory::new(LARGE, false).unwrap();
    drop(memory);
    assert_eq!(handed_over(), 1);

    // The last view of a file gives back all of it, however small the view.
    let name = name("viewed");
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    let view = file.view(0, PAGE).unwrap();
    drop(file);
    drop(view);
    assert_eq!(handed_over(), 1);
    settle();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn a_reservation_with_a_large_file_that_nobody_closes_is_left_to_the_dropper() {
    let name = name("left");
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name, HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    drop(file);
    drop(space);
    assert_eq!(handed_over(), 1);
    settle();
    assert_eq!(mappings_of(&name), 0);
}

/// Half a reservation of pieces of one file, none of which adjoins the next.
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
fn a_large_file_in_many_pieces_is_unmapped_by_the_dropper() {
    let name = name("pieces-placed");
    let space = in_pieces(&name);
    space.unmap(0, 8 * MIB).unwrap();
    assert_eq!(handed_over(), 0);
    space.unmap(0, 2 * LARGE).unwrap();
    assert!(handed_over() > 0);
    settle();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn a_reservation_of_many_pieces_that_nobody_closes_is_left_to_the_dropper() {
    let name = name("pieces-left");
    let space = in_pieces(&name);
    UNMAPS.set(0);
    drop(space);
    assert_eq!((UNMAPS.take(), handed_over()), (0, 1));
    settle();
    assert_eq!(mappings_of(&name), 0);
}

#[test]
fn private_memory_of_a_forgotten_reservation_keeps_its_bytes() {
    let space = AddressSpaceReservation::new(36).unwrap();
    let memory = PrivateMemory::new(LARGE, false).unwrap();
    space.map_private(MIB, LARGE, &memory, 0).unwrap();
    memory.write(LARGE - 3, &[1, 2, 3]).unwrap();
    drop(space);
    assert_eq!(handed_over(), 1);
    settle();
    let mut bytes = [0; 3];
    memory.read(LARGE - 3, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3]);
}

#[test]
fn much_memory_is_faulted_in_after_the_garbage_that_was_there_before() {
    let space = AddressSpaceReservation::new(36).unwrap();
    let file = MemoryFile::create(LARGE, &name("waits"), HugePages::None).unwrap();
    space.map_file(0, LARGE, &file, 0, true, false).unwrap();
    let gate = Gate::close();
    // The event loop faults in no more than this by itself.
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
fn a_reservation_is_unmapped_in_one_call_however_long_it_is() {
    let file = MemoryFile::create(MIB, &name("little"), HugePages::None).unwrap();
    for closes in [true, false] {
        let space = AddressSpaceReservation::new(44).unwrap();
        space.map_file(0, MIB, &file, 0, true, false).unwrap();
        UNMAPS.set(0);
        if closes {
            space.close().unwrap();
        }
        drop(space);
        assert_eq!((UNMAPS.take(), handed_over()), (1, 0));
    }
}

#[test]
fn pieces_add_up_to_the_whole() {
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
