//! Mappings for devices, made and removed in batches.

use crate::memory::{AddressSpaceReservation, Lease, MemoryFile};
use crate::{Error, ErrorCode, Range, Result};

/// Where the memory of a mapping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the reservation of the batch.
    Memory {
        /// Whether it is faulted in before it is mapped.
        fault_in: bool,
    },
    /// In that one of the files of the batch; in a device's, a BAR, it becomes a dma-buf.
    File(u32),
}

/// A mapping to be made. Devices may read the memory.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest {
    /// The IOVAs: where devices see the memory.
    pub range: Range,
    /// Where the memory is in the reservation or file.
    pub offset: u64,
    /// The memory.
    pub source: Source,
    /// Whether devices may write it.
    pub writable: bool,
}

impl MapRequest {
    /// Its part of the reservation.
    fn memory(&self) -> Option<Range> {
        match self.source {
            Source::Memory { .. } => Range::new(self.offset, self.range.len()).ok(),
            Source::File(_) => None,
        }
    }
}

/// What a mapping is made of.
#[derive(Debug)]
pub(crate) enum Memory<'batch> {
    /// Memory of this process. The mapping has to keep the lease until it is unmapped.
    Leased(Lease),
    /// A file.
    File(&'batch MemoryFile),
}

/// Mappings to be made together, and a hold on their memory: nothing can replace it before they are made.
#[derive(Debug)]
pub struct Batch {
    requests: Vec<MapRequest>,
    files: Vec<MemoryFile>,
    reservation: Option<AddressSpaceReservation>,
    /// Of the memory, what is to be faulted in.
    absent: Vec<Range>,
    /// The requests from this one on have yet to be made. Their memory is leased by the batch.
    next: usize,
}

impl Batch {
    /// Takes requests, and leases what they have of the reservation, all or none.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a request of a file or reservation that is not given; as
    /// [`lease`](AddressSpaceReservation::lease).
    pub fn new(
        reservation: Option<&AddressSpaceReservation>,
        files: Vec<MemoryFile>,
        requests: Vec<MapRequest>,
    ) -> Result<Self> {
        let wanted = requests.iter().filter_map(|request| match request.source {
            Source::Memory { fault_in } => Some((request.offset, request.range.len(), fault_in)),
            Source::File(_) => None,
        });
        let absent = match reservation {
            Some(reservation) => reservation.lease_ranges(wanted)?,
            None if wanted.clone().next().is_none() => Vec::new(),
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

    /// The requests.
    #[must_use]
    pub fn requests(&self) -> &[MapRequest] {
        &self.requests
    }

    /// A file of the batch.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`.
    pub(crate) fn file(&self, which: u32) -> Result<&MemoryFile> {
        let file = usize::try_from(which)
            .ok()
            .and_then(|which| self.files.get(which));
        file.ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("there is no file {which}"),
            )
        })
    }

    /// Faults in what is to be.
    ///
    /// # Errors
    /// As [`ensure_mapped`](AddressSpaceReservation::ensure_mapped).
    pub(crate) fn fault_in(&self) -> Result<(), BatchError> {
        let Some(reservation) = &self.reservation else {
            return Ok(());
        };
        let fault_in = |one: &&MapRequest| one.source == Source::Memory { fault_in: true };
        let wanted = self.requests.iter().filter(fault_in);
        // SAFETY: the batch has leased them.
        let result =
            unsafe { reservation.fault_in(&self.absent, wanted.filter_map(MapRequest::memory)) };
        result.map_err(|error| {
            let is_there = |one: &MapRequest| one.memory()?.intersection(&error.range()?);
            let index = self.requests.iter().position(|one| is_there(one).is_some());
            BatchError::at(index.unwrap_or(0), error)
        })
    }

    /// Makes the mappings one after another. When one fails, removes those before it, the last first. `T` is the state
    /// that both work on.
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
                let stuck =
                    done.filter_map(|(at, done)| Some((at, unmap(state, &done.range).err()?)));
                return Err(BatchError {
                    index,
                    error,
                    stuck: stuck.collect(),
                });
            }
        }
        Ok(())
    }

    /// The memory of the next request, which the batch doesn't release any more.
    fn memory_of(&self, request: &MapRequest) -> Result<Memory<'_>> {
        match request.source {
            Source::File(which) => self.file(which).map(Memory::File),
            Source::Memory { .. } => {
                let reservation = self.reservation.as_ref().ok_or_else(no_reservation)?;
                let range = Range::new(request.offset, request.range.len())?;
                // SAFETY: the batch has leased it, and goes on to the next.
                Ok(Memory::Leased(unsafe { reservation.leased(range) }))
            }
        }
    }
}

fn no_reservation() -> Error {
    let message = "memory of this process is of a reservation";
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
