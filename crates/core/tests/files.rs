//! Memory files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use common::{PAGE, code, failure, file};
use nix::errno::Errno;
use peerdma_core::ErrorCode;
use peerdma_core::memory::{HugePages, MemoryFile};

#[test]
fn the_length_is_sealed() {
    let file = file(4);
    // SAFETY: the file owns the descriptor and lives to the end of the test.
    let fd = unsafe { BorrowedFd::borrow_raw(file.fd().unwrap()) };
    for length in [0, 4096, 3 * 4096, 5 * 4096] {
        assert_eq!(
            nix::unistd::ftruncate(fd, length).unwrap_err(),
            Errno::EPERM,
            "{length}"
        );
    }
    assert_eq!(file.length().unwrap(), 4 * PAGE);
    assert_eq!(file.page_size(), PAGE);
    assert!(!file.is_device());
}

#[test]
fn creating_checks_its_arguments() {
    let create = |length, name: &str| MemoryFile::create(length, name, HugePages::None);
    assert_eq!(code(create(0, "x")), ErrorCode::EmptyRange);
    assert_eq!(code(create(PAGE + 1, "x")), ErrorCode::Unaligned);
    assert_eq!(code(create(1 << 63, "x")), ErrorCode::OutOfRange);
    assert_eq!(code(create(u64::MAX, "x")), ErrorCode::Unaligned);
    assert_eq!(code(create(PAGE, "a\0b")), ErrorCode::InvalidArgument);
    assert_eq!(
        code(create(PAGE, &"n".repeat(250))),
        ErrorCode::InvalidArgument
    );
    create(PAGE, &"n".repeat(249)).unwrap();
    assert_eq!(code(HugePages::from_shift(12)), ErrorCode::InvalidArgument);
}

#[test]
fn allocates_huge_pages_or_fails_at_once() {
    for (huge, size) in [
        (HugePages::Size2M, 1 << 21),
        (HugePages::Size1G, 1_u64 << 30),
    ] {
        match MemoryFile::create(size, "huge", huge) {
            Ok(file) => {
                assert_eq!(file.page_size(), size);
                file.write(100, b"huge").unwrap();
                let mut back = [0; 4];
                file.read(100, &mut back).unwrap();
                assert_eq!(&back, b"huge");
            }
            Err(error) => assert_eq!(error.code(), ErrorCode::HugePagesUnavailable, "{error}"),
        }
        assert_eq!(
            code(MemoryFile::create(size / 2, "huge", huge)),
            ErrorCode::Unaligned
        );
    }
}

#[test]
fn rejects_reads_and_writes_beyond_the_end() {
    let file = file(2);
    file.write(PAGE - 3, b"across").unwrap();
    let mut back = [0; 6];
    file.read(PAGE - 3, &mut back).unwrap();
    assert_eq!(&back, b"across");
    for offset in [2 * PAGE - 5, 2 * PAGE, u64::MAX - 3, u64::MAX] {
        assert_eq!(
            code(file.read(offset, &mut back)),
            ErrorCode::OutOfRange,
            "{offset:#x}"
        );
        assert_eq!(
            code(file.write(offset, b"across")),
            ErrorCode::OutOfRange,
            "{offset:#x}"
        );
    }
    file.read(2 * PAGE, &mut []).unwrap();
    assert_eq!(
        code(file.read(2 * PAGE + 1, &mut [])),
        ErrorCode::OutOfRange
    );
    assert_eq!(file.length().unwrap(), 2 * PAGE);
}

#[test]
fn a_duplicate_outlives_the_original() {
    let original = file(1);
    original.write(7, b"kept").unwrap();
    let copy = MemoryFile::from_fd(original.fd().unwrap()).unwrap();
    assert_ne!(copy.fd().unwrap(), original.fd().unwrap());
    drop(original);
    let mut back = [0; 4];
    copy.read(7, &mut back).unwrap();
    assert_eq!(&back, b"kept");
}

#[test]
fn rejects_a_number_that_is_not_a_descriptor() {
    for fd in [-1, i32::MIN, i32::MAX] {
        let error = failure(MemoryFile::from_fd(fd));
        assert_eq!(
            (error.code(), error.errno()),
            (ErrorCode::InvalidArgument, Some(Errno::EBADF))
        );
    }
}

#[test]
fn never_extends_a_file_of_the_caller() {
    let path = std::env::temp_dir().join(format!("peerdma-append-{}", std::process::id()));
    let mut raw = std::fs::OpenOptions::new()
        .create_new(true)
        .read(true)
        .append(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    raw.write_all(&[1; 5000]).unwrap();
    let file = MemoryFile::from_fd(raw.as_raw_fd()).unwrap();
    // pwrite(2) on a file opened for appending writes at its end, whatever the offset.
    file.write(10, &[9; 20]).unwrap();
    file.write(4990, &[8; 10]).unwrap();
    assert_eq!(code(file.write(4990, &[8; 11])), ErrorCode::OutOfRange);
    assert_eq!(file.length().unwrap(), 5000);
    raw.rewind().unwrap();
    let mut back = vec![0; 5000];
    file.read(0, &mut back).unwrap();
    assert!(back[..10].iter().all(|byte| *byte == 1) && back[10..30].iter().all(|byte| *byte == 9));
    raw.set_len(100).unwrap();
    assert_eq!(file.length().unwrap(), 100);
    assert_eq!(code(file.read(90, &mut back[..20])), ErrorCode::OutOfRange);
}

#[test]
fn binds_to_nodes_that_exist() {
    let file = file(4);
    match file.bind_to_node(0) {
        Ok(()) => assert_eq!(code(file.bind_to_node(1000)), ErrorCode::InvalidArgument),
        Err(error) => assert_eq!(error.errno(), Some(Errno::ENOSYS)),
    }
    assert_eq!(
        code(file.bind_to_node(u32::MAX)),
        ErrorCode::InvalidArgument
    );
}
