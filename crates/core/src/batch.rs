//! Mappings for devices, made and removed in batches.

use crate::memory::{Lease, MemoryFile};
use crate::{Error, Range, Result};

/// Memory to be mapped.
#[derive(Debug)]
pub enum Source {
    /// Memory of this process. The mapping keeps the lease until it is unmapped.
    Memory(Lease),
    /// Part of a file; of a device's, a BAR, which becomes a dma-buf.
    File {
        /// A memfd, a file of hugetlbfs, shared memory, or a device's.
        file: MemoryFile,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
}

/// A mapping to be made. Devices may read the memory.
#[derive(Debug)]
pub struct MapRequest {
    /// Where devices see the memory.
    pub iova: u64,
    /// The memory.
    pub source: Source,
    /// Whether devices may write it.
    pub writable: bool,
}

impl MapRequest {
    /// The IOVAs.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`.
    pub fn range(&self) -> Result<Range> {
        let length = match &self.source {
            Source::Memory(lease) => lease.len(),
            Source::File { length, .. } => *length,
        };
        Range::new(self.iova, length)
    }
}

/// Why a batch was not mapped.
#[derive(Debug)]
pub struct BatchError {
    /// Which of the requests could not be mapped.
    pub index: usize,
    /// Why.
    pub error: Error,
    /// Which of the requests before it could not be unmapped again, and why. Their mappings stay on record.
    pub stuck: Vec<(usize, Error)>,
}

impl BatchError {
    /// Before anything was mapped.
    pub(crate) const fn at(index: usize, error: Error) -> Self {
        Self {
            index,
            error,
            stuck: Vec::new(),
        }
    }
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self::at(0, error)
    }
}

/// Prepares all requests of a batch, before any lock is taken.
pub(crate) fn prepare_all<P>(
    requests: Vec<MapRequest>,
    prepare: impl Fn(MapRequest) -> Result<P>,
) -> Result<Vec<P>, BatchError> {
    let prepare = |(index, request)| prepare(request).map_err(|error| BatchError::at(index, error));
    requests.into_iter().enumerate().map(prepare).collect()
}

/// Makes mappings one after another. When one fails, removes those before it, the last first. `T` is the state that
/// both work on.
pub(crate) fn map_all<T, R>(
    state: &mut T,
    requests: impl IntoIterator<Item = R>,
    mut map: impl FnMut(&mut T, R) -> Result<Range>,
    mut unmap: impl FnMut(&mut T, &Range) -> Result<()>,
) -> Result<(), BatchError> {
    let mut done = Vec::new();
    for (index, request) in requests.into_iter().enumerate() {
        match map(state, request) {
            Ok(range) => done.push(range),
            Err(error) => {
                let undone = done.iter().enumerate().rev();
                let stuck = undone.filter_map(|(at, range)| Some((at, unmap(state, range).err()?)));
                return Err(BatchError {
                    index,
                    error,
                    stuck: stuck.collect(),
                });
            }
        }
    }
    Ok(())
}

/// Removes the mappings of ranges, one range after another. Returns which of the ranges failed, and why; without `all`
/// it stops at the first.
pub(crate) fn unmap_each(
    ranges: &[Range],
    all: bool,
    mut unmap: impl FnMut(&Range) -> Result<()>,
) -> Vec<(usize, Error)> {
    let mut failures = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        if let Err(error) = unmap(range) {
            failures.push((index, error));
            if !all {
                break;
            }
        }
    }
    failures
}
