//! Ten thousand rounds of all operations leak no descriptor, mapping, page or allocation. This file is a process of its
//! own, with one test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use common::{PAGE, code, file, page_of};
use peerdma_core::ErrorCode;
use peerdma_core::event::{EventFd, Watcher};
use peerdma_core::memory::{AddressSpaceReservation, MemoryFile, PrivateMemory};

const WARM_UP: u64 = 1_000;
const ROUNDS: u64 = 10_000;
/// The kernel counts resident pages per CPU, and adds each count to the total after 64 pages.
const SLACK_PAGES: i64 = 256;

/// Counts allocations that are not freed.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: passes everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    allocations: isize,
    descriptors: usize,
    mappings: usize,
    resident_pages: i64,
}

fn held() -> Held {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let mappings = maps.lines().count();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop((maps, statm));
    Held {
        allocations: LIVE.load(Ordering::Relaxed),
        descriptors,
        mappings,
        resident_pages: resident,
    }
}

/// The objects that exist for all rounds.
struct Lasting {
    space: AddressSpaceReservation,
    file: MemoryFile,
    /// A file whose length is not sealed.
    loose: MemoryFile,
    memory: PrivateMemory,
}

/// Maps, leases and unmaps, with a failure of each kind in between; in the end nothing is mapped.
fn round(n: u64, lasting: &Lasting) {
    let Lasting {
        space,
        file,
        loose,
        memory,
    } = lasting;
    let at = |page: u64| (n % 7 + page) * PAGE;
    space
        .map_file(
            at(0),
            8 * PAGE,
            file,
            (n % 8) * PAGE,
            true,
            n.is_multiple_of(2),
        )
        .unwrap();
    space
        .map_file(at(8), 4 * PAGE, loose, 0, false, false)
        .unwrap();
    space
        .map_private(at(16), 8 * PAGE, memory, (n % 8) * PAGE)
        .unwrap();

    let space_code = |result| code::<()>(result);
    let again = space.map_file(at(7), 2 * PAGE, file, 0, true, false);
    assert_eq!(space_code(again), ErrorCode::Overlap);
    let twice = space.map_private(at(32), PAGE, memory, (n % 8) * PAGE);
    assert_eq!(space_code(twice), ErrorCode::Overlap);
    let beyond = space.map_file(at(64), 32 * PAGE, file, 0, true, false);
    assert_eq!(space_code(beyond), ErrorCode::OutOfRange);
    let gap = space.ensure_mapped(&[(at(0), 24 * PAGE)]);
    assert_eq!(space_code(gap), ErrorCode::VaNotMapped);
    assert_eq!(code(space.lease(at(10), 4 * PAGE)), ErrorCode::VaNotMapped);

    space
        .ensure_mapped(&[(at(0), 12 * PAGE), (at(16), 8 * PAGE)])
        .unwrap();
    let whole = space.lease(at(0), 12 * PAGE).unwrap();
    let part = space.lease(at(2), PAGE).unwrap();
    let private = space.lease(at(16), 8 * PAGE).unwrap();
    let mut bytes = [0; 16];
    part.write(0, &[7; 16]).unwrap();
    whole.read(2 * PAGE, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 16]);
    private.read(PAGE, &mut bytes).unwrap();
    assert_eq!(space_code(space.unmap(at(2), PAGE)), ErrorCode::VaInUse);
    assert_eq!(
        space_code(space.unmap(at(0), 64 * PAGE)),
        ErrorCode::VaInUse
    );
    drop(whole);
    assert_eq!(
        space_code(space.unmap(at(0), 64 * PAGE)),
        ErrorCode::VaInUse
    );
    drop((part, private));

    space.unmap(at(3), 2 * PAGE).unwrap();
    space.unmap(at(18), PAGE).unwrap();
    space.unmap(at(0), 64 * PAGE).unwrap();
    if n.is_multiple_of(10) {
        short_lived(n);
    }
}

/// Creates and releases objects in a different order each time. Handles or leases end first, closed or only dropped.
fn short_lived(n: u64) {
    let space = AddressSpaceReservation::new(44).unwrap();
    let (file, memory) = (file(4), PrivateMemory::new(4 * PAGE, true).unwrap());
    memory.write(PAGE, &page_of(3)).unwrap();
    space
        .map_file(1 << 40, 4 * PAGE, &file, 0, true, false)
        .unwrap();
    space.map_private(1 << 41, 4 * PAGE, &memory, 0).unwrap();
    space.unmap((1 << 41) + PAGE, PAGE).unwrap();
    let lease = space.lease(1 << 40, PAGE).unwrap();
    assert_eq!(code(space.close()), ErrorCode::VaInUse);
    match n / 10 % 4 {
        0 => drop((file, memory, space, lease)),
        1 => drop((space, lease, memory, file)),
        2 => drop((lease, space, file, memory)),
        _ => {
            drop(lease);
            space.close().unwrap();
        }
    }
    assert!(PrivateMemory::new(1, false).is_err());
    assert!(MemoryFile::from_fd(i32::MAX).is_err());
    watched(n);
}

/// Drops a watcher before or after its eventfds, with counts collected or not.
fn watched(n: u64) {
    let (sender, notifications) = std::sync::mpsc::channel();
    let watcher = Watcher::new(move || sender.send(()).unwrap()).unwrap();
    let (event, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    watcher.add(n, &event).unwrap();
    watcher.add(n + 1, &other).unwrap();
    assert_eq!(code(watcher.add(n, &other)), ErrorCode::InvalidArgument);
    event.signal(n + 1).unwrap();
    notifications.recv().unwrap();
    match n / 10 % 3 {
        0 => assert_eq!(watcher.collect().unwrap(), [(n, n + 1)]),
        1 => drop((watcher, event)),
        _ => {
            watcher.remove(n).unwrap();
            drop(event);
        }
    }
}

#[test]
fn ten_thousand_rounds_leak_nothing() {
    let loose =
        nix::sys::memfd::memfd_create("loose", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&loose, 4 * 4096).unwrap();
    let lasting = Lasting {
        space: common::reservation(),
        file: file(16),
        loose: MemoryFile::from_fd(std::os::fd::AsRawFd::as_raw_fd(&loose)).unwrap(),
        memory: PrivateMemory::new(16 * PAGE, false).unwrap(),
    };
    (0..WARM_UP).for_each(|n| round(n, &lasting));
    let before = held();
    (0..ROUNDS).for_each(|n| round(n, &lasting));
    let after = held();
    eprintln!("{ROUNDS} rounds: {before:?} before, {after:?} after");
    let growth = after.resident_pages - before.resident_pages;
    assert!(growth <= SLACK_PAGES, "{growth} pages more");
    let resident_pages = before.resident_pages;
    assert_eq!(
        Held {
            resident_pages,
            ..after
        },
        before
    );
}
