//! Batches of mappings as JavaScript gives them, and what became of them.

use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;
use peerdma_core::memory::MemoryFile;
use peerdma_core::{Batch, BatchError, Error, MapRequest, Range, Source};

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

/// Reads requests of four words: IOVA, length, flags, and the offset in the reservation or file. Leases the memory that
/// is part of the reservation, all or none: nothing can replace it before a worker thread maps it.
pub(crate) fn read_batch(
    reservation: Option<&NativeReservation>,
    files: &[ClassInstance<'_, NativeMemoryFile>],
    words: &[u64],
) -> napi::Result<Batch> {
    let (groups, rest) = words.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid(
            "requests must be of IOVA, length, flags and offset",
        ));
    }
    let mut requests = Vec::with_capacity(groups.len());
    for words in groups {
        requests.push(read_request(words, files.len())?);
    }
    let reservation = reservation
        .map(NativeReservation::reservation)
        .transpose()?;
    Batch::new(reservation.as_ref(), cloned(files)?, requests).map_err(to_js)
}

fn read_request(
    [iova, length, flags, offset]: &[u64; 4],
    files: usize,
) -> napi::Result<MapRequest> {
    let (which, kind) = (flags >> WHICH_SHIFT, flags & ((1 << WHICH_SHIFT) - 1));
    let source = match kind & !WRITABLE {
        FILE => Source::File(file_number(which, files)?),
        fault_in @ (0 | FAULT_IN) if which == 0 => Source::Memory {
            fault_in: fault_in != 0,
        },
        _ => {
            return Err(invalid(format!(
                "unknown flags {flags:#x} for IOVA {iova:#x}"
            )));
        }
    };
    Ok(MapRequest {
        range: Range::new(*iova, *length).map_err(to_js)?,
        offset: *offset,
        source,
        writable: kind & WRITABLE != 0,
    })
}

/// Which of `files` files it is.
pub(crate) fn file_number(which: u64, files: usize) -> napi::Result<u32> {
    let is_known = usize::try_from(which).is_ok_and(|which| which < files);
    let number = u32::try_from(which).ok().filter(|_| is_known);
    number.ok_or_else(|| invalid(format!("there is no file {which}")))
}

/// The files of a call, for any thread.
pub(crate) fn cloned(
    files: &[ClassInstance<'_, NativeMemoryFile>],
) -> napi::Result<Vec<MemoryFile>> {
    files.iter().map(|file| file.file().cloned()).collect()
}

/// What became of a batch, in JavaScript.
pub(crate) fn mapped(result: core::result::Result<(), BatchError>) -> Vec<NativeFailure> {
    let failure = result.err();
    failure.map_or_else(Vec::new, |failure| {
        failures(std::iter::once((failure.index, failure.error)).chain(failure.stuck))
    })
}

/// Reads ranges of two words: start and length.
pub(crate) fn read_ranges(words: &[u64]) -> napi::Result<Vec<Range>> {
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid("ranges must be pairs of start and length"));
    }
    let mut ranges = Vec::with_capacity(pairs.len());
    for [start, length] in pairs {
        ranges.push(Range::new(*start, *length).map_err(to_js)?);
    }
    Ok(ranges)
}

/// What becomes of failures in JavaScript.
pub(crate) fn failures(all: impl IntoIterator<Item = (usize, Error)>) -> Vec<NativeFailure> {
    let failure = |(index, error): (usize, Error)| NativeFailure {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        reason: reason(&error),
    };
    all.into_iter().map(failure).collect()
}
