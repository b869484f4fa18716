//! Helpers of the memory tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use peerdma_core::memory::{AddressSpaceReservation, HugePages, MemoryFile};
use peerdma_core::{Error, ErrorCode, Result};

pub const PAGE: u64 = 4096;

/// Creates a small reservation: 64 GiB.
pub fn reservation() -> AddressSpaceReservation {
    AddressSpaceReservation::new(36).unwrap()
}

/// Creates a memory file of that many pages.
pub fn file(pages: u64) -> MemoryFile {
    MemoryFile::create(pages * PAGE, "test", HugePages::None).unwrap()
}

/// Returns the error code of a failed call.
pub fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

/// Returns the error of a failed call.
pub fn failure<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.unwrap_err()
}

/// Returns a page filled with one byte.
pub fn page_of(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(PAGE).unwrap()]
}

/// Returns the number of bytes in `start..end` without a mapping in this process.
pub fn unmapped_bytes(start: u64, end: u64) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut missing = end - start;
    for line in maps.lines() {
        let (from, rest) = line.split_once('-').unwrap();
        let to = rest.split(' ').next().unwrap();
        let from = u64::from_str_radix(from, 16).unwrap().max(start);
        let to = u64::from_str_radix(to, 16).unwrap().min(end);
        missing -= to.saturating_sub(from);
    }
    missing
}
