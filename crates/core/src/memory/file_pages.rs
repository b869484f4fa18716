//! Reports which pages a file of shared memory has, without touching them.
//!
//! A page that `fallocate` has allocated is cleared when a processor touches it first. Until then, the kernel reports
//! it as a hole (`mapping_seek_hole_data`), but counts it (`cachestat`).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek};

use super::file::Kind;
use super::{MemoryFile, sys};
use crate::Range;
use crate::range::to_offset;

/// The bytes that count as missing from a missing page on. A check of each page costs as much as the page.
const MISSING_STEP: u64 = 2 << 20;

/// The pages of a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartPages {
    /// The file has all of them, cleared or written.
    Complete,
    /// Some are missing. The others are cleared or written.
    Missing,
    /// Some may be allocated, but not cleared.
    Uncleared,
}

/// A second open description of a file of shared memory.
///
/// A search for holes moves the position of a description, and the caller may use that of the first.
#[derive(Debug)]
pub(crate) struct FilePages {
    file: File,
    page_size: u64,
    /// The start and end of pages without a hole that the last search found.
    present: (u64, u64),
}

impl MemoryFile {
    /// Whether the file may have pages that are allocated, but not cleared.
    ///
    /// It has none if it was created here and its descriptor never left this crate, which does not allocate pages.
    pub(crate) fn may_have_uncleared_pages(&self) -> bool {
        match &*self.kind {
            Kind::Memory {
                fixed: Some(_),
                is_shared_with_caller,
                ..
            } => is_shared_with_caller.load(Ordering::Relaxed),
            Kind::Memory { .. } => true,
            Kind::Device { .. } => false,
        }
    }

    /// Opens a memfd, or another regular file of shared memory, for questions about its pages.
    ///
    /// `None` for other files, and for huge pages.
    pub(crate) fn pages(&self) -> Option<FilePages> {
        let Kind::Memory {
            fd, hugetlb: false, ..
        } = &*self.kind
        else {
            return None;
        };
        if !is_shared_memory(fd.as_fd()) {
            return None;
        }
        let file = File::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let page_size = self.page_size();
        Some(FilePages {
            file,
            page_size,
            present: (0, 0),
        })
    }
}

/// Whether the holes of a file are its missing pages.
fn is_shared_memory(fd: BorrowedFd<'_>) -> bool {
    let is_regular = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    fstat(fd).is_ok_and(|stat| is_regular(stat.st_mode))
        && fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

impl FilePages {
    /// Returns which pages of a part the file has. Faster for parts in ascending order: a search for a hole takes time
    /// for each page up to it, also past the part.
    ///
    /// A kernel without `cachestat` (before Linux 6.5) does not report which pages are cleared.
    pub(crate) fn part(&mut self, range: &Range) -> PartPages {
        let is_present = |(start, end)| start <= range.start() && range.end() <= end;
        if is_present(self.present) {
            return PartPages::Complete;
        }
        let allocated = self.allocated(range);
        if allocated == Some(0) {
            return PartPages::Missing;
        }
        if let Some(hole) = self.next(Whence::SeekHole, range.start()) {
            self.present = (range.start(), hole);
            if is_present(self.present) {
                return PartPages::Complete;
            }
        }
        if allocated.is_some_and(|allocated| allocated <= self.cleared(range)) {
            PartPages::Missing
        } else {
            PartPages::Uncleared
        }
    }

    /// Returns the parts of `range` that may lack cleared pages.
    pub(crate) fn missing(&self, range: &Range) -> Vec<Range> {
        let mut missing: Vec<Range> = Vec::new();
        let mut at = range.start();
        while let Some(rest) = Range::between(at, range.end()) {
            let Some(hole) = self.next(Whence::SeekHole, at) else {
                missing.push(rest); // past the end of the file: faulting in reports it
                break;
            };
            // The last page of the file may end in a hole.
            let start = hole
                .checked_next_multiple_of(self.page_size)
                .unwrap_or(u64::MAX);
            let end = start.saturating_add(MISSING_STEP).min(range.end());
            let Some(part) = Range::between(start, end).and_then(|part| part.intersection(&rest))
            else {
                break;
            };
            match missing.last_mut() {
                Some(last) if last.end() == part.start() => {
                    *last = Range::between(last.start(), part.end()).unwrap_or(*last);
                }
                _ => missing.push(part),
            }
            at = end;
        }
        missing
    }

    /// Returns the number of pages that are allocated, cleared or not, or swapped out. `None` if the kernel does not
    /// report it.
    fn allocated(&self, range: &Range) -> Option<u64> {
        let counts = sys::cachestat(self.file.as_fd(), range).ok()?;
        Some(counts.nr_cache.saturating_add(counts.nr_evicted))
    }

    /// Returns the number of pages that are cleared or written, or swapped out.
    fn cleared(&self, range: &Range) -> u64 {
        let (mut bytes, mut at) = (0_u64, range.start());
        while at < range.end() {
            let next = |what, at| self.next(what, at).unwrap_or(u64::MAX).min(range.end());
            let data = next(Whence::SeekData, at);
            at = next(Whence::SeekHole, data);
            bytes = bytes.saturating_add(at.saturating_sub(data));
        }
        bytes.div_ceil(self.page_size)
    }

    /// Returns where the next data or hole begins. `None` past the end of the file, or if no data follows.
    fn next(&self, what: Whence, at: u64) -> Option<u64> {
        let found = lseek(&self.file, to_offset(at).ok()?, what).ok()?;
        u64::try_from(found).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;
    use crate::memory::HugePages;

    const PAGE: u64 = 4096;

    fn file() -> MemoryFile {
        MemoryFile::create(16 * PAGE, "pages", HugePages::None).unwrap()
    }

    fn range(first: u64, count: u64) -> Range {
        Range::new(first * PAGE, count * PAGE).unwrap()
    }

    fn allocate(file: &MemoryFile, first: i64, count: i64) {
        file.with_fd(|fd| fallocate(fd, FallocateFlags::empty(), first << 12, count << 12))
            .unwrap()
            .unwrap();
    }

    #[test]
    fn distinguishes_missing_pages_from_those_that_are_not_cleared() {
        let file = file();
        let part = |first, count| file.pages().unwrap().part(&range(first, count));
        assert_eq!(part(0, 16), PartPages::Missing);
        for page in [0, 2, 3, 9] {
            file.write(page * PAGE, &[1]).unwrap();
        }
        assert_eq!(part(2, 2), PartPages::Complete);
        assert_eq!(part(0, 16), PartPages::Missing);
        allocate(&file, 4, 2);
        assert_eq!(part(0, 16), PartPages::Uncleared);
        assert_eq!(part(4, 1), PartPages::Uncleared);
        assert_eq!(part(6, 10), PartPages::Missing);
        file.fault_in(4 * PAGE, 2 * PAGE, false).unwrap();
        assert_eq!(part(2, 4), PartPages::Complete);
        assert_eq!(part(0, 16), PartPages::Missing);
    }

    #[test]
    fn remembers_the_pages_up_to_a_hole() {
        let file = file();
        for page in [2, 3, 4, 6] {
            file.write(page * PAGE, &[1]).unwrap();
        }
        let mut pages = file.pages().unwrap();
        let mut states = |parts: &[(u64, u64)]| -> Vec<PartPages> {
            let of_part = |(first, count): &(u64, u64)| pages.part(&range(*first, *count));
            parts.iter().map(of_part).collect()
        };
        let [complete, missing] = [PartPages::Complete, PartPages::Missing];
        let found = states(&[
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 1),
            (6, 1),
            (2, 3),
            (1, 2),
            (5, 2),
        ]);
        let expected = [
            complete, complete, missing, missing, complete, complete, missing, missing,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_may_have_uncleared_pages_once_the_caller_has_its_descriptor() {
        let file = file();
        assert!(!file.may_have_uncleared_pages());
        let of_caller = MemoryFile::from_fd(file.fd().unwrap()).unwrap();
        assert!(file.may_have_uncleared_pages());
        assert!(of_caller.may_have_uncleared_pages());
    }

    #[test]
    fn pages_that_are_not_cleared_are_missing() {
        let file = file();
        allocate(&file, 0, 16);
        let pages = file.pages().unwrap();
        assert_eq!(pages.missing(&range(0, 16)), [range(0, 16)]);
        file.fault_in(0, 16 * PAGE, false).unwrap();
        assert_eq!(pages.missing(&range(0, 16)), []);
    }

    #[test]
    fn a_range_past_the_end_of_a_file_is_missing() {
        let mut pages = file().pages().unwrap();
        assert_eq!(pages.missing(&range(16, 2)), [range(16, 2)]);
        assert_eq!(pages.part(&range(16, 2)), PartPages::Missing);
    }

    #[test]
    fn only_regular_files_of_shared_memory_are_opened_again() {
        let executable = File::open(std::env::current_exe().unwrap()).unwrap();
        let device = File::open("/dev/zero").unwrap();
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        for fd in [executable.as_fd(), device.as_fd(), reader.as_fd()] {
            let file = MemoryFile::from_fd(fd.as_raw_fd()).unwrap();
            assert!(file.pages().is_none());
        }
        assert!(file().pages().is_some());
    }
}
