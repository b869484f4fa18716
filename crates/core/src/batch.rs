//! Batches of device mappings: made together, removed together.

use crate::memory::{AddressSpaceReservation, Lease, MemoryFile};
use crate::{Error, ErrorCode, Range, Result};

/// The memory of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
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
    pub source: Source,
    /// Whether devices can write the memory.
    pub writable: bool,
}

impl MapRequest {
    /// The part of the reservation, if the memory is in it.
    fn memory(&self) -> Option<Range> {
        match self.source {
            Source::Memory { .. } => Range::new(self.offset, self.range.len()).ok(),
            Source::File(_) => None,
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
            Source::Memory { fault_in } => Some((request.offset, request.range.len(), fault_in)),
            Source::File(_) => None,
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
        let fault_in = |one: &&MapRequest| one.source == Source::Memory { fault_in: true };
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

    /// Allocates the missing pages of large parts of files of shared memory with several threads.
    ///
    /// The kernel maps no other files, and uses one thread. Skips parts for whose number of bytes `threads` returns 1.
    pub(crate) fn fault_in_files(&self, threads: impl Fn(u64) -> usize) {
        for request in &self.requests {
            let Source::File(index) = request.source else {
                continue;
            };
            let length = request.range.len();
            if threads(length) > 1
                && let Ok(file) = self.file(index)
                && file.is_shared_memory()
            {
                // The kernel allocates what is still missing when it maps the file, or reports why it cannot.
                let _ = file.fault_in_by(&threads, request.offset, length, false);
            }
        }
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
            Source::File(index) => self.file(index).map(Memory::File),
            Source::Memory { .. } => {
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

/// Unmaps the ranges one after another. Returns the index and error of each failure; without `all`, stops at the
/// first.
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
