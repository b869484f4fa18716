//! One file for many pieces of memory, so that all of them together take one descriptor.

use std::sync::{Arc, Mutex, Weak};

use nix::sys::resource::{Resource, getrlimit};

use super::file::Kind;
use super::{HugePages, MemoryFile};
use crate::locked::lock;
use crate::range::check_aligned;
use crate::{Range, Result, host_page_size};

/// The length of a file, which takes memory only where it is written. Pieces are never used twice, so that bytes which somebody
/// can still see are never another piece's: a file this long lasts for 268 million pieces of a page.
const FILE_LENGTH: u64 = 1 << 40;

/// Hands out pieces of a file. Each is zero to begin with, and the system gets its memory back when the last
/// that holds it is gone: file handles, placements, IOMMU mappings and views. The file goes with its last piece.
#[derive(Debug)]
pub struct FilePool {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Weak<Kind>,
    /// Up to where the file was handed out.
    end: u64,
}

impl FilePool {
    /// A pool of files of that name; none is open yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Hands out `length` bytes, from [`part_offset`](MemoryFile::part_offset) of the file.
    ///
    /// # Errors
    /// As [`MemoryFile::create`].
    pub fn take(&self, length: u64) -> Result<MemoryFile> {
        let page = host_page_size()?;
        Range::new(0, length)?;
        check_aligned(
            length,
            page,
            format_args!("the length {length:#x} of a piece"),
        )?;
        let mut state = lock(&self.state);
        if let Some(kind) = state.file.upgrade() {
            let whole = MemoryFile { kind, part: None };
            if let Ok(range) = Range::new(state.end, length)
                && range.end() <= whole.length()?
            {
                state.end = range.end();
                return Ok(whole.part(range));
            }
        }
        let whole = MemoryFile::create(length.max(file_length(page)), &self.name, HugePages::None)?;
        *state = State {
            file: Arc::downgrade(&whole.kind),
            end: length,
        };
        Ok(whole.part(Range::new(0, length)?))
    }
}

/// Whole pages, and no more than this process may make a file: the kernel ends a process that tries.
fn file_length(page: u64) -> u64 {
    let most = getrlimit(Resource::RLIMIT_FSIZE).map_or(FILE_LENGTH, |(soft, _)| soft);
    most.min(FILE_LENGTH) & !page.wrapping_sub(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory::AddressSpaceReservation;

    fn take(pool: &FilePool, length: u64) -> (MemoryFile, u64) {
        let file = pool.take(length).unwrap();
        let at = file.part_offset();
        (file, at)
    }

    /// Bytes that a file takes.
    fn used(file: &MemoryFile) -> u64 {
        let stat = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap());
        u64::try_from(stat.unwrap().st_blocks).unwrap() * 512
    }

    #[test]
    fn pieces_are_of_one_file_and_never_the_same_again() {
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
    fn the_file_goes_with_its_last_piece() {
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
    fn memory_goes_back_when_the_last_of_all_that_hold_a_piece_is_gone() {
        let page = host_page_size().unwrap();
        let pool = FilePool::new("pool");
        let (other, at_other) = take(&pool, page);
        other.write(at_other, &[1]).unwrap();
        let space = AddressSpaceReservation::new(30).unwrap();
        // The last to go is, in turn: the view, the placement, a lease of it, the handle.
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
                    assert_eq!(used(&other), 2 * page, "still placed");
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
}
