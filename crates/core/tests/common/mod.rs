//! What the memory tests share.
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

/// A small reservation: 64 GiB.
pub fn reservation() -> AddressSpaceReservation {
    AddressSpaceReservation::new(36).unwrap()
}

/// A memory file of that many pages.
pub fn file(pages: u64) -> MemoryFile {
    MemoryFile::create(pages * PAGE, "test", HugePages::None).unwrap()
}

/// The code that a call failed with.
pub fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

/// The failure of a call.
pub fn failure<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.unwrap_err()
}

/// A page full of one byte.
pub fn page_of(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(PAGE).unwrap()]
}

/// How many bytes of `start..end` have no mapping in this process.
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
