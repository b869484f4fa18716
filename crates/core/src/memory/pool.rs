//! One file for many pieces of memory, so that all of them together take one descriptor.

use std::sync::{Arc, Mutex, Weak};

use nix::sys::resource::{Resource, getrlimit};

use super::file::Kind;
use super::{HugePages, MemoryFile};
use crate::locked::lock;
use crate::range::check_aligned;
use crate::{Range, Result, host_page_size};

/// The length of a file, which takes memory only where it is written. Pieces are never used twice, so that bytes which
/// somebody can still see are never another piece's: a file this long lasts for 268 million pieces of a page.
pub(super) const FILE_LENGTH: u64 = 1 << 40;

/// Hands out pieces of a file. Each is zero to begin with, and the system gets its memory back when the last
/// that holds it is gone: file handles, placements, IOMMU mappings and views. The file goes with its last piece.
#[derive(Debug)]
pub struct FilePool {
    name: String,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) file: Weak<Kind>,
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
