//! Batches of device mappings: made together, removed together.

use crate::memory::{AddressSpaceReservation, Lease, MemoryFile, PartPages};
use crate::{Error, ErrorCode, Range, Result};

/// The memory of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySource {
    /// A part of the batch's reservation.
    Memory {
        /// Whether to fault the memory in before mapping it.
        fault_in: bool,
    },
    /// The batch's file with this index. A device's file is a BAR, which is mapped as a dma-buf.
    File(u32),
}

/// A request to map memory for devices, which can always read it.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// The IOVAs that devices use.
    pub range: Range,
    /// The offset in the reservation or file.
    pub offset: u64,
    pub source: MemorySource,
    /// Whether devices can write the memory.
    pub writable: bool,
}

impl MapRequest {
    /// The part of the reservation, if the memory is in it.
    fn memory(&self) -> Option<Range> {
        match self.source {
            MemorySource::Memory { .. } => Range::new(self.offset, self.range.len()).ok(),
            MemorySource::File(_) => None,
        }
    }

    /// The index of the file and the part of it, if the memory is a file.
    fn part_of_file(&self) -> Option<(usize, Range)> {
        match self.source {
            MemorySource::File(index) => Some((
                usize::try_from(index).ok()?,
                Range::new(self.offset, self.range.len()).ok()?,
            )),
            MemorySource::Memory { .. } => None,
        }
    }
}

/// The memory of one mapping.
#[derive(Debug)]
pub(crate) enum Memory<'batch> {
    /// Memory of this process. The mapping must own the lease until it is unmapped.
    Leased(Lease),
    /// A file.
    File(&'batch MemoryFile),
}

/// Mappings to make together. The batch leases their memory, so nothing can replace it before they are made.
#[derive(Debug)]
pub struct Batch {
    requests: Vec<MapRequest>,
    files: Vec<MemoryFile>,
    reservation: Option<AddressSpaceReservation>,
    /// The parts of the memory to fault in.
    absent: Vec<Range>,
    /// The index of the next request to map. The batch holds the leases from this one on.
    next: usize,
}

/// Whether the kernel rejects a part that could not be faulted in, such as one past the end.
fn is_refused_by_kernel(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::MemoryFault | ErrorCode::OutOfRange | ErrorCode::Unaligned
    )
}

impl Batch {
    /// Creates a batch and leases the requested parts of the reservation, all or none.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if a request names a file or reservation that the batch does not have; as
    /// [`lease`](AddressSpaceReservation::lease).
    pub fn new(
        reservation: Option<&AddressSpaceReservation>,
        files: Vec<MemoryFile>,
        requests: Vec<MapRequest>,
    ) -> Result<Self> {
        let requested = requests.iter().filter_map(|request| match request.source {
            MemorySource::Memory { fault_in } => {
                Some((request.offset, request.range.len(), fault_in))
            }
            MemorySource::File(_) => None,
        });
        let absent = match reservation {
            Some(reservation) => reservation.lease_ranges(requested)?,
            None if requested.clone().next().is_none() => Vec::new(),
            None => return Err(no_reservation()),
        };
        Ok(Self {
            requests,
            files,
            reservation: reservation.cloned(),
            absent,
            next: 0,
        })
    }

    #[must_use]
    pub fn requests(&self) -> &[MapRequest] {
        &self.requests
    }

    /// Returns a file of the batch by its index.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`.
    pub(crate) fn file(&self, index: u32) -> Result<&MemoryFile> {
        let file = usize::try_from(index)
            .ok()
            .and_then(|index| self.files.get(index));
        file.ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("the batch has no file {index}"),
            )
        })
    }

    /// Faults in the memory of the requests that require it.
    ///
    /// # Errors
    /// As [`ensure_mapped`](AddressSpaceReservation::ensure_mapped).
    pub(crate) fn fault_in(&self) -> Result<(), BatchError> {
        let Some(reservation) = &self.reservation else {
            return Ok(());
        };
        let fault_in = |one: &&MapRequest| one.source == MemorySource::Memory { fault_in: true };
        let requested = self.requests.iter().filter(fault_in);
        // SAFETY: the batch has leased the ranges.
        let result =
            unsafe { reservation.fault_in(&self.absent, requested.filter_map(MapRequest::memory)) };
        result.map_err(|error| {
            let is_there = |one: &MapRequest| one.memory()?.intersection(&error.range()?);
            let index = self.requests.iter().position(|one| is_there(one).is_some());
            BatchError::at(index.unwrap_or(0), error)
        })
    }

    /// Faults in the files of shared memory that the kernel would map wrongly or slowly. It maps no other files.
    ///
    /// A mapping by file clears the pages that it allocates, but not those that `fallocate` has allocated: the first
    /// access of a processor clears them, and what devices have written is lost. Besides, the kernel allocates pages
    /// with one thread; parts for whose number of bytes `threads` returns more are faulted in by several.
    ///
    /// # Errors
    /// As [`MemoryFile::fault_in`], except for a part that the kernel cannot map either: it reports why.
    pub(crate) fn fault_in_files(&self, threads: impl Fn(u64) -> usize) -> Result<(), BatchError> {
        let parts = self.requests.iter().enumerate();
        let mut parts: Vec<_> = parts
            .filter_map(|(index, request)| {
                let (number, part) = request.part_of_file()?;
                Some((number, part, index))
            })
            .collect();
        parts.sort_unstable_by_key(|(number, part, _)| (*number, part.start()));
        for of_file in parts.chunk_by(|(one, ..), (other, ..)| one == other) {
            let number = of_file.first().map_or(usize::MAX, |(number, ..)| *number);
            let Some(file) = self.files.get(number) else {
                continue;
            };
            let may_be_uncleared = file.may_have_uncleared_pages();
            let is_left_to_kernel = |(_, part, _): &(usize, Range, usize)| threads(part.len()) < 2;
            if !may_be_uncleared && of_file.iter().all(is_left_to_kernel) {
                continue;
            }
            let Some(mut pages) = file.pages() else {
                continue;
            };
            for (_, part, index) in of_file {
                let state = if may_be_uncleared {
                    pages.part(part)
                } else {
                    PartPages::Missing
                };
                let skipped = match state {
                    PartPages::Complete => true,
                    PartPages::Missing => threads(part.len()) < 2,
                    PartPages::Uncleared => false,
                };
                if skipped {
                    continue;
                }
                match file.fault_in_by(&threads, part.start(), part.len(), false) {
                    Err(error) if !is_refused_by_kernel(&error) => {
                        return Err(BatchError::at(*index, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes the mappings one after another. If one fails, unmaps those before it, last first. `T` is the state that
    /// both closures change.
    pub(crate) fn map<T>(
        &mut self,
        state: &mut T,
        mut map: impl FnMut(&mut T, &MapRequest, Memory<'_>) -> Result<()>,
        mut unmap: impl FnMut(&mut T, &Range) -> Result<()>,
    ) -> Result<(), BatchError> {
        while let Some(request) = self.requests.get(self.next).copied() {
            let index = self.next;
            self.next = index.saturating_add(1);
            let memory = self.memory_of(&request);
            if let Err(error) = memory.and_then(|memory| map(state, &request, memory)) {
                let done = self.requests.iter().take(index).enumerate().rev();
                let still_mapped =
                    done.filter_map(|(at, done)| Some((at, unmap(state, &done.range).err()?)));
                return Err(BatchError {
                    index,
                    error,
                    still_mapped: still_mapped.collect(),
                });
            }
        }
        Ok(())
    }

    /// Returns the memory of the next request, and passes its lease to the caller.
    fn memory_of(&self, request: &MapRequest) -> Result<Memory<'_>> {
        match request.source {
            MemorySource::File(index) => self.file(index).map(Memory::File),
            MemorySource::Memory { .. } => {
                let reservation = self.reservation.as_ref().ok_or_else(no_reservation)?;
                let range = Range::new(request.offset, request.range.len())?;
                // SAFETY: the batch has leased the range, and does not release it after this.
                Ok(Memory::Leased(unsafe { reservation.leased(range) }))
            }
        }
    }
}

fn no_reservation() -> Error {
    let message = "the request maps memory of a reservation, but the batch has none";
    Error::new(ErrorCode::InvalidArgument, message)
}

impl Drop for Batch {
    fn drop(&mut self) {
        let rest = self.requests.iter().skip(self.next);
        if let Some(reservation) = &self.reservation {
            reservation.release(rest.filter_map(MapRequest::memory));
        }
    }
}

/// The error of a batch that was not mapped.
#[derive(Debug)]
pub struct BatchError {
    /// The index of the request that failed.
    pub index: usize,
    pub error: Error,
    /// The earlier requests that the rollback could not unmap, with the errors. Their mappings stay on record.
    pub still_mapped: Vec<(usize, Error)>,
}

impl BatchError {
    /// An error that occurred before anything was mapped.
    pub(crate) const fn at(index: usize, error: Error) -> Self {
        Self {
            index,
            error,
            still_mapped: Vec::new(),
        }
    }
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self::at(0, error)
    }
}

/// Unmaps the ranges one after another. Returns the index and error of each failure.
pub(crate) fn unmap_each(
    ranges: &[Range],
    continue_after_failure: bool,
    mut unmap: impl FnMut(&Range) -> Result<()>,
) -> Vec<(usize, Error)> {
    let mut failures = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        if let Err(error) = unmap(range) {
            failures.push((index, error));
            if !continue_after_failure {
                break;
            }
        }
    }
    failures
}
