//! Batches of mappings as JavaScript gives them, and what became of them.

use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;
use peerdma_core::memory::{LeasedBatch, MemoryFile};
use peerdma_core::{BatchError, Error, MapRequest, Range, Result, Source};

use crate::error::{invalid, reason, to_js};
use crate::memory::NativeMemoryFile;
use crate::reservation::NativeReservation;
use crate::task::Work;

/// A request's flags: devices may write the memory.
const WRITABLE: u64 = 1;
/// The memory is part of a file.
const FILE: u64 = 2;
/// The memory is faulted in before it is mapped; not of a file.
const FAULT_IN: u64 = 4;
/// Flags from this bit on say which file of the call.
pub(crate) const WHICH_SHIFT: u32 = 32;

/// What could not be mapped, or not be unmapped.
#[napi(object, object_from_js = false)]
pub struct NativeFailure {
    /// Which of the requests or ranges.
    pub index: u32,
    /// Why, in the form of the messages of errors.
    pub reason: String,
}

/// A batch on a worker thread.
pub(crate) type Failing = Work<Vec<NativeFailure>, Vec<NativeFailure>>;

/// Mappings to be made, for any thread.
pub(crate) struct Requests {
    requests: Vec<Parsed>,
    /// Of those that are part of the reservation, in their order.
    leases: Option<LeasedBatch>,
}

struct Parsed {
    iova: u64,
    length: u64,
    offset: u64,
    writable: bool,
    fault_in: bool,
    /// Part of the reservation without one.
    file: Option<MemoryFile>,
}

impl Requests {
    /// Reads requests of four words: IOVA, length, flags, and the offset in the reservation or file. Leases the memory
    /// that is part of the reservation, all or none: nothing can replace it before a worker thread maps it.
    pub(crate) fn read(
        reservation: Option<&NativeReservation>,
        files: &[ClassInstance<'_, NativeMemoryFile>],
        words: &[u64],
    ) -> napi::Result<Self> {
        let (groups, rest) = words.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(invalid(
                "requests must be of IOVA, length, flags and offset",
            ));
        }
        let files = files
            .iter()
            .map(|file| file.file().cloned())
            .collect::<napi::Result<Vec<MemoryFile>>>()?;
        let requests = groups
            .iter()
            .map(|words| Parsed::read(words, &files))
            .collect::<napi::Result<Vec<Parsed>>>()?;
        let here = requests.iter().filter(|one| one.file.is_none());
        let ranges: Vec<_> = here
            .map(|one| (one.offset, one.length, one.fault_in))
            .collect();
        let leases = match reservation {
            Some(reservation) => {
                let batch = reservation.reservation()?.lease_batch(ranges.into_iter());
                Some(batch.map_err(to_js)?)
            }
            None if ranges.is_empty() => None,
            None => return Err(invalid("memory of this process is of a reservation")),
        };
        Ok(Self { requests, leases })
    }

    /// Faults in what is to be, and makes the mappings by `map`.
    pub(crate) fn map(
        self,
        map: impl FnOnce(Vec<MapRequest>) -> Result<(), BatchError>,
    ) -> Result<Vec<NativeFailure>> {
        let leases = self
            .leases
            .map_or_else(|| Ok(Vec::new()), LeasedBatch::fault_in)?;
        let mut leases = leases.into_iter();
        let requests = self.requests.into_iter().filter_map(|one| {
            let source = match one.file {
                Some(file) => Source::File {
                    file,
                    offset: one.offset,
                    length: one.length,
                },
                None => Source::Memory(leases.next()?),
            };
            Some(MapRequest {
                iova: one.iova,
                source,
                writable: one.writable,
            })
        });
        Ok(match map(requests.collect()) {
            Ok(()) => Vec::new(),
            Err(failure) => {
                let first = std::iter::once((failure.index, failure.error));
                failures(first.chain(failure.stuck))
            }
        })
    }
}

impl Parsed {
    fn read([iova, length, flags, offset]: &[u64; 4], files: &[MemoryFile]) -> napi::Result<Self> {
        let (which, kind) = (flags >> WHICH_SHIFT, flags & ((1 << WHICH_SHIFT) - 1));
        let is_file = kind & FILE != 0;
        let known = if is_file {
            WRITABLE | FILE
        } else {
            WRITABLE | FAULT_IN
        };
        if kind & !known != 0 || (which != 0 && !is_file) {
            return Err(invalid(format!(
                "unknown flags {flags:#x} for IOVA {iova:#x}"
            )));
        }
        let file = usize::try_from(which)
            .ok()
            .and_then(|which| files.get(which));
        if is_file && file.is_none() {
            return Err(invalid(format!("there is no file {which}")));
        }
        Ok(Self {
            iova: *iova,
            length: *length,
            offset: *offset,
            writable: kind & WRITABLE != 0,
            fault_in: kind & FAULT_IN != 0,
            file: file.filter(|_| is_file).cloned(),
        })
    }
}

/// Reads ranges of two words: start and length.
pub(crate) fn read_ranges(words: &[u64]) -> napi::Result<Vec<Range>> {
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid("ranges must be pairs of start and length"));
    }
    let range = |[start, length]: &[u64; 2]| Range::new(*start, *length).map_err(to_js);
    pairs.iter().map(range).collect()
}

/// What becomes of failures in JavaScript.
pub(crate) fn failures(all: impl IntoIterator<Item = (usize, Error)>) -> Vec<NativeFailure> {
    let failure = |(index, error): (usize, Error)| NativeFailure {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        reason: reason(&error),
    };
    all.into_iter().map(failure).collect()
}
