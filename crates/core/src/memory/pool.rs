//! A pool of memory pieces in one file, so that all of them use one descriptor.

use std::sync::{Arc, Mutex, Weak};

use nix::sys::resource::{Resource, getrlimit};

use super::file::Kind;
use super::{HugePages, MemoryFile};
use crate::locked::lock;
use crate::range::check_aligned;
use crate::{Range, Result, host_page_size};

/// The length of a file, which uses memory only where it is written. No part of it is allocated twice, so a stale
/// view or mapping of one piece never reaches another. A file of this length has space for 268 million pieces of a
/// page.
pub(super) const FILE_LENGTH: u64 = 1 << 40;

/// Allocates pieces of a file. Each is zero at first, and its memory is released with its last owner: a file handle,
/// mapping, IOMMU mapping or view. The file is closed with its last piece.
#[derive(Debug)]
pub struct FilePool {
    name: String,
    pub(super) state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
pub(super) struct PoolState {
    pub(super) file: Weak<Kind>,
    /// The offset of the next piece.
    end: u64,
}

impl FilePool {
    /// Creates a pool whose files have that name; none is open yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Allocates `length` bytes, from [`part_offset`](MemoryFile::part_offset) of the file.
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
        *state = PoolState {
            file: Arc::downgrade(&whole.kind),
            end: length,
        };
        Ok(whole.part(Range::new(0, length)?))
    }
}

/// Returns a length of whole pages within the file size limit of the process. The kernel kills a process that exceeds
/// it.
fn file_length(page: u64) -> u64 {
    let most = getrlimit(Resource::RLIMIT_FSIZE).map_or(FILE_LENGTH, |(soft, _)| soft);
    most.min(FILE_LENGTH) & !page.wrapping_sub(1)
}
