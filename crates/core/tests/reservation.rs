//! Reservations, and files mapped in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::fd::{AsRawFd, BorrowedFd};

use common::{PAGE, code, failure, file, page_of, reservation, unmapped_bytes};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use peerdma_core::ErrorCode;
use peerdma_core::memory::{HugePages, MemoryFile};

#[test]
fn host_addresses_are_checked() {
    let space = reservation();
    let length = space.length();
    let base = space.host_va(0, 1).unwrap();
    assert_eq!(
        space.host_va(length - PAGE, PAGE).unwrap(),
        base + length - PAGE
    );
    assert_eq!(space.host_va(0, length).unwrap(), base);
    for (offset, size) in [
        (length - PAGE, PAGE + 1),
        (length, 1),
        (length - 1, 2),
        (0, length + 1),
        (u64::MAX, 1),
    ] {
        assert_eq!(
            code(space.host_va(offset, size)),
            ErrorCode::OutOfRange,
            "{offset:#x} {size:#x}"
        );
    }
    assert_eq!(code(space.host_va(1, u64::MAX)), ErrorCode::OutOfRange);
    assert_eq!(code(space.host_va(0, 0)), ErrorCode::EmptyRange);
}

#[test]
fn mapping_checks_its_arguments() {
    let (space, file) = (reservation(), file(4));
    let map = |offset, length, from| space.map_file(offset, length, &file, from, true, false);
    assert_eq!(code(map(1, PAGE, 0)), ErrorCode::Unaligned);
    assert_eq!(code(map(0, PAGE + 1, 0)), ErrorCode::Unaligned);
    assert_eq!(code(map(0, PAGE, 1)), ErrorCode::Unaligned);
    assert_eq!(code(map(0, 0, 0)), ErrorCode::EmptyRange);
    assert_eq!(code(map(0, 5 * PAGE, 0)), ErrorCode::OutOfRange);
    assert_eq!(code(map(0, PAGE, 4 * PAGE)), ErrorCode::OutOfRange);
    assert_eq!(
        code(map(0, PAGE, u64::MAX - PAGE + 1)),
        ErrorCode::OutOfRange
    );
    assert_eq!(code(map(space.length(), PAGE, 0)), ErrorCode::OutOfRange);
    assert_eq!(
        code(map(u64::MAX - PAGE + 1, PAGE, 0)),
        ErrorCode::OutOfRange
    );
    map(space.length() - PAGE, PAGE, 3 * PAGE).unwrap();
}

#[test]
fn rejects_a_range_that_overlaps_a_mapping() {
    let (space, file) = (reservation(), file(8));
    space
        .map_file(4 * PAGE, 4 * PAGE, &file, 0, true, true)
        .unwrap();
    for (offset, pages) in [(4, 4), (4, 1), (7, 1), (3, 2), (7, 2), (0, 8)] {
        let result = space.map_file(offset * PAGE, pages * PAGE, &file, 0, true, false);
        assert_eq!(code(result), ErrorCode::Overlap, "{offset} {pages}");
    }
    space.map_file(0, 4 * PAGE, &file, 0, true, false).unwrap();
    space
        .map_file(8 * PAGE, 8 * PAGE, &file, 0, true, false)
        .unwrap();
}

#[test]
fn unmapping_splits_and_spans_gaps() {
    let (space, file) = (reservation(), file(16));
    for page in 0..16 {
        file.write(page * PAGE, &page_of(u8::try_from(page).unwrap()))
            .unwrap();
    }
    space.map_file(0, 8 * PAGE, &file, 0, true, false).unwrap();
    space
        .map_file(10 * PAGE, 6 * PAGE, &file, 10 * PAGE, true, false)
        .unwrap();
    space.unmap(2 * PAGE, PAGE).unwrap();
    space.unmap(6 * PAGE, 6 * PAGE).unwrap();
    space.unmap(100 * PAGE, PAGE).unwrap();
    for (page, mapped) in [
        (1, true),
        (2, false),
        (3, true),
        (5, true),
        (6, false),
        (9, false),
        (11, false),
        (12, true),
    ] {
        let lease = space.lease(page * PAGE, PAGE);
        if mapped {
            let mut byte = [99];
            lease.unwrap().read(5, &mut byte).unwrap();
            assert_eq!(u64::from(byte[0]), page);
        } else {
            assert_eq!(code(lease), ErrorCode::VaNotMapped, "{page}");
        }
    }
    space
        .map_file(2 * PAGE, PAGE, &file, 7 * PAGE, true, false)
        .unwrap();
    let mut byte = [0];
    space
        .lease(0, 4 * PAGE)
        .unwrap()
        .read(2 * PAGE, &mut byte)
        .unwrap();
    assert_eq!(byte, [7]);
    let base = space.host_va(0, 1).unwrap();
    assert_eq!(unmapped_bytes(base, base + space.length()), 0);
}

#[test]
fn names_the_first_gap() {
    let (space, file) = (reservation(), file(16));
    space.map_file(0, 2 * PAGE, &file, 0, true, false).unwrap();
    space
        .map_file(3 * PAGE, 2 * PAGE, &file, 0, false, false)
        .unwrap();
    let gap_in = |offset: u64, pages: u64| {
        let error = failure(space.ensure_mapped(&[(offset * PAGE, pages * PAGE)]));
        assert_eq!(error.code(), ErrorCode::VaNotMapped);
        let before = error.message().strip_suffix(" is unmapped").unwrap();
        before.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(gap_in(0, 5), "0x2000..0x3000");
    assert_eq!(gap_in(4, 3), "0x5000..0x7000");
    assert_eq!(gap_in(100, 1), "0x64000..0x65000");
    space.ensure_mapped(&[(0, 2 * PAGE)]).unwrap();
    space.ensure_mapped(&[(4 * PAGE, PAGE)]).unwrap();
    assert_eq!(code(space.ensure_mapped(&[(0, 0)])), ErrorCode::EmptyRange);
}

#[test]
fn leases_hold_their_range() {
    let (space, file) = (reservation(), file(8));
    space.map_file(0, 8 * PAGE, &file, 0, true, false).unwrap();
    let lease = space.lease(2 * PAGE, 2 * PAGE).unwrap();
    let again = space.lease(3 * PAGE, PAGE).unwrap();
    let error = failure(space.unmap(0, 8 * PAGE));
    assert_eq!(error.code(), ErrorCode::VaInUse);
    assert!(error.message().contains("0x2000..0x3000"), "{error}");
    assert_eq!(
        code(space.map_file(2 * PAGE, PAGE, &file, 0, true, false)),
        ErrorCode::VaInUse
    );
    assert_eq!(code(space.close()), ErrorCode::VaInUse);
    // Nothing changed, and the rest of the mapping can be unmapped.
    space.ensure_mapped(&[(0, 8 * PAGE)]).unwrap();
    space.unmap(0, 2 * PAGE).unwrap();
    space.unmap(4 * PAGE, 4 * PAGE).unwrap();
    drop(lease);
    assert_eq!(code(space.unmap(0, 8 * PAGE)), ErrorCode::VaInUse);
    drop(again);
    space.unmap(0, 8 * PAGE).unwrap();
    space.close().unwrap();
    space.close().unwrap();
    assert_eq!(code(space.lease(0, PAGE)), ErrorCode::Closed);
    assert_eq!(code(space.unmap(0, PAGE)), ErrorCode::Closed);
    assert_eq!(code(space.ensure_mapped(&[(0, PAGE)])), ErrorCode::Closed);
    assert_eq!(
        code(space.map_file(0, PAGE, &file, 0, true, false)),
        ErrorCode::Closed
    );
}

#[test]
fn a_lease_outlives_every_handle() {
    let (space, file) = (reservation(), file(2));
    let (base, length) = (space.host_va(0, 1).unwrap(), space.length());
    space.map_file(0, 2 * PAGE, &file, 0, true, false).unwrap();
    file.write(PAGE, b"alive").unwrap();
    let lease = space.lease(PAGE, PAGE).unwrap();
    assert!(space.owns(&lease) && !reservation().owns(&lease));
    drop(space);
    drop(file);
    assert_eq!(unmapped_bytes(base, base + length), 0);
    let mut back = [0; 5];
    lease.read(0, &mut back).unwrap();
    assert_eq!(&back, b"alive");
    drop(lease);
    assert!(unmapped_bytes(base, base + length) > length / 2);
}

#[test]
fn lease_copies_are_bounded_by_the_lease() {
    let (space, file) = (reservation(), file(4));
    space.map_file(0, 4 * PAGE, &file, 0, true, false).unwrap();
    let lease = space.lease(PAGE, 2 * PAGE).unwrap();
    assert_eq!((lease.offset(), lease.len()), (PAGE, 2 * PAGE));
    lease.write(PAGE - 2, b"page").unwrap();
    let mut back = [0; 4];
    file.read(2 * PAGE - 2, &mut back).unwrap();
    assert_eq!(&back, b"page");
    for offset in [2 * PAGE - 3, 2 * PAGE, u64::MAX] {
        assert_eq!(code(lease.read(offset, &mut back)), ErrorCode::OutOfRange);
        assert_eq!(code(lease.write(offset, &back)), ErrorCode::OutOfRange);
    }
    lease.read(2 * PAGE, &mut []).unwrap();
}

#[test]
fn rejects_writes_to_read_only_memory() {
    let (space, file) = (reservation(), file(1));
    file.write(0, b"rom").unwrap();
    space.map_file(0, PAGE, &file, 0, false, false).unwrap();
    space.ensure_mapped(&[(0, PAGE)]).unwrap();
    let lease = space.lease(0, PAGE).unwrap();
    let mut back = [0; 3];
    lease.read(0, &mut back).unwrap();
    assert_eq!(&back, b"rom");
    let error = failure(lease.write(0, b"ram"));
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::MemoryFault, Some(Errno::EFAULT))
    );
}

#[test]
fn an_access_past_the_end_of_a_file_is_an_error_not_a_signal() {
    let raw = memfd_create("shrinks", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&raw, 64 * 4096).unwrap();
    let file = MemoryFile::from_fd(raw.as_raw_fd()).unwrap();
    let space = reservation();
    space.map_file(0, 64 * PAGE, &file, 0, true, false).unwrap();
    space
        .map_file(64 * PAGE, 64 * PAGE, &file, 0, false, false)
        .unwrap();
    nix::unistd::ftruncate(&raw, 8 * 4096).unwrap();
    for start in [0, 64] {
        space.ensure_mapped(&[(start * PAGE, 8 * PAGE)]).unwrap();
        let error = failure(space.ensure_mapped(&[(start * PAGE, 64 * PAGE)]));
        assert_eq!(
            (error.code(), error.errno()),
            (ErrorCode::MemoryFault, Some(Errno::EFAULT))
        );
        assert!(
            error
                .syscall()
                .unwrap()
                .starts_with("madvise(MADV_POPULATE_")
        );
    }
    let lease = space.lease(0, 64 * PAGE).unwrap();
    let mut back = [0; 8];
    assert_eq!(
        code(lease.read(8 * PAGE - 4, &mut back)),
        ErrorCode::MemoryFault
    );
    assert_eq!(code(lease.write(8 * PAGE, &back)), ErrorCode::MemoryFault);
    lease.read(8 * PAGE - 8, &mut back).unwrap();
    drop(lease);
    // The failed call holds no lease.
    space.unmap(0, 128 * PAGE).unwrap();
}

#[test]
fn a_failed_map_leaves_no_hole() {
    let file = file(4);
    let path = format!("/proc/self/fd/{}", file.fd().unwrap());
    let read_only = std::fs::File::open(path).unwrap();
    let read_only = MemoryFile::from_fd(read_only.as_raw_fd()).unwrap();
    let space = reservation();
    let error = failure(space.map_file(0, PAGE, &read_only, 0, true, false));
    assert_eq!(
        (error.code(), error.errno(), error.syscall()),
        (ErrorCode::System, Some(Errno::EACCES), Some("mmap"))
    );
    let base = space.host_va(0, 1).unwrap();
    assert_eq!(unmapped_bytes(base, base + space.length()), 0);
    space
        .map_file(0, PAGE, &read_only, 0, false, false)
        .unwrap();
}

#[test]
fn large_memory_is_faulted_in_by_several_threads() {
    let pages = (96 << 20) / PAGE;
    let (space, file) = (reservation(), file(pages));
    space
        .map_file(1 << 30, pages * PAGE, &file, 0, true, false)
        .unwrap();
    space.ensure_mapped(&[(1 << 30, pages * PAGE)]).unwrap();
    // SAFETY: the file owns the descriptor and lives to the end of the test.
    let stat =
        nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(file.fd().unwrap()) }).unwrap();
    assert_eq!(stat.st_blocks * 512, 96 << 20);
}

#[test]
fn huge_pages_require_huge_alignment() {
    const HUGE: u64 = 1 << 21;
    let file = match MemoryFile::create(4 * HUGE, "huge", HugePages::Size2M) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("skipped: {error}; to run it, set sysctl vm.nr_hugepages=16");
            return;
        }
    };
    let _ = file.bind_to_node(0);
    let space = reservation();
    for (offset, length, from) in [(PAGE, HUGE, 0), (0, PAGE, 0), (0, HUGE, PAGE)] {
        assert_eq!(
            code(space.map_file(offset, length, &file, from, true, false)),
            ErrorCode::Unaligned
        );
    }
    space
        .map_file(HUGE, 4 * HUGE, &file, 0, true, false)
        .unwrap();
    space.ensure_mapped(&[(HUGE, 4 * HUGE)]).unwrap();
    assert_eq!(code(space.unmap(HUGE, PAGE)), ErrorCode::Unaligned);
    assert_eq!(code(space.unmap(0, HUGE + PAGE)), ErrorCode::Unaligned);
    space.unmap(2 * HUGE, HUGE).unwrap();
    assert_eq!(
        code(space.ensure_mapped(&[(HUGE, 4 * HUGE)])),
        ErrorCode::VaNotMapped
    );
    space
        .lease(HUGE, HUGE)
        .unwrap()
        .write(HUGE - 4, b"huge")
        .unwrap();
    let mut back = [0; 4];
    file.read(HUGE - 4, &mut back).unwrap();
    assert_eq!(&back, b"huge");
}
