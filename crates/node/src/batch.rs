//! Batches of mappings from JavaScript, and their results.

use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;
use peerdma_core::memory::MemoryFile;
use peerdma_core::{Batch, BatchError, Error, MapRequest, MemorySource, Range, Result};

use crate::error::{NativeError, invalid};
use crate::memory::NativeMemoryFile;
use crate::reservation::NativeReservation;
use crate::task::Work;

/// Request flag: devices can write the memory.
const WRITABLE: u64 = 1;
/// Request flag: the memory is part of a file.
const FILE: u64 = 2;
/// Request flag: fault the memory in before mapping it; not for a file.
const FAULT_IN: u64 = 4;
/// The bits from this one on are the index of the file in the call.
pub(crate) const FILE_INDEX_SHIFT: u32 = 32;

/// A request or range that failed.
#[napi(object, object_from_js = false)]
pub struct NativeFailure {
    /// The index of the request or range.
    pub index: u32,
    /// The error.
    pub error: NativeError,
}

/// The failure of a batch of mappings.
#[napi(object, object_from_js = false)]
pub struct NativeMapFailure {
    /// The request that failed.
    pub failed: NativeFailure,
    /// The earlier requests that could not be unmapped again. The others are not mapped.
    pub still_mapped: Vec<NativeFailure>,
}

/// A batch of mappings on a worker thread.
pub(crate) type MapTask = Work<Option<NativeMapFailure>, Option<NativeMapFailure>>;

/// A batch of unmaps on a worker thread.
pub(crate) type UnmapTask = Work<Vec<NativeFailure>, Vec<NativeFailure>>;

/// Reads requests of four words: IOVA, length, flags, and the offset in the reservation or file. Leases the memory in
/// the reservation, all or none: nothing can replace it before a worker thread maps it.
pub(crate) fn read_batch(
    reservation: Option<&NativeReservation>,
    files: &[ClassInstance<'_, NativeMemoryFile>],
    words: &[u64],
) -> Result<Batch> {
    let (groups, rest) = words.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid(
            "requests must consist of IOVA, length, flags and offset",
        ));
    }
    let mut requests = Vec::with_capacity(groups.len());
    for words in groups {
        requests.push(read_request(words, files.len())?);
    }
    let reservation = reservation
        .map(NativeReservation::reservation)
        .transpose()?;
    Batch::new(reservation.as_ref(), cloned(files)?, requests)
}

fn read_request([iova, length, flags, offset]: &[u64; 4], files: usize) -> Result<MapRequest> {
    let (file_index, kind) = (
        flags >> FILE_INDEX_SHIFT,
        flags & ((1 << FILE_INDEX_SHIFT) - 1),
    );
    let source = match kind & !WRITABLE {
        FILE => MemorySource::File(file_number(file_index, files)?),
        fault_in @ (0 | FAULT_IN) if file_index == 0 => MemorySource::Memory {
            fault_in: fault_in != 0,
        },
        _ => {
            return Err(invalid(format!(
                "unknown flags {flags:#x} for IOVA {iova:#x}"
            )));
        }
    };
    Ok(MapRequest {
        range: Range::new(*iova, *length)?,
        offset: *offset,
        source,
        writable: kind & WRITABLE != 0,
    })
}

/// Checks the index of one of `files` files.
pub(crate) fn file_number(file_index: u64, files: usize) -> Result<u32> {
    let is_known = usize::try_from(file_index).is_ok_and(|file_index| file_index < files);
    let number = u32::try_from(file_index).ok().filter(|_| is_known);
    number.ok_or_else(|| invalid(format!("the call has no file {file_index}")))
}

/// Clones the files of a call, for any thread.
pub(crate) fn cloned(files: &[ClassInstance<'_, NativeMemoryFile>]) -> Result<Vec<MemoryFile>> {
    files.iter().map(|file| file.file().cloned()).collect()
}

/// Converts the result of a batch for JavaScript.
pub(crate) fn map_failure(result: Result<(), BatchError>) -> Option<NativeMapFailure> {
    result.err().map(|batch| NativeMapFailure {
        failed: failure((batch.index, batch.error)),
        still_mapped: failures(batch.still_mapped),
    })
}

/// Reads ranges of two words: start and length.
pub(crate) fn read_ranges(words: &[u64]) -> Result<Vec<Range>> {
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid("ranges must be pairs of start and length"));
    }
    let mut ranges = Vec::with_capacity(pairs.len());
    for [start, length] in pairs {
        ranges.push(Range::new(*start, *length)?);
    }
    Ok(ranges)
}

/// Converts failures for JavaScript.
pub(crate) fn failures(all: Vec<(usize, Error)>) -> Vec<NativeFailure> {
    all.into_iter().map(failure).collect()
}

/// Converts a failure for JavaScript.
pub(crate) fn failure((index, error): (usize, Error)) -> NativeFailure {
    NativeFailure {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        error: error.into(),
    }
}
