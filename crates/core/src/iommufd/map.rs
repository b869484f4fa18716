//! Maps memory into an address space, and unmaps it.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ioas::{Ioas, OpenIoas};
use super::ioctl::{self, Access};
use super::owners::{MemoryOwner, RemovedOwners};
use crate::batch::{Batch, BatchError, MapRequest, Memory, MemorySource};
use crate::dropper;
use crate::memory::{self, MemoryFile};
use crate::vfio::{DeviceInner, DeviceMapping, DmaBuf};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(IOMMU_IOAS_MAP)";
const MAP_FILE: &str = "ioctl(IOMMU_IOAS_MAP_FILE)";

/// Part of a BAR to map, and the hold on its device.
struct Bar {
    buffer: Arc<DmaBuf>,
    start: u64,
    mapping: DeviceMapping,
}

/// Finds the BARs of a batch, in the order of their requests, and checks the other files.
fn prepare(batch: &Batch, maps_files: bool) -> Result<VecDeque<Bar>, BatchError> {
    let mut bars = VecDeque::new();
    let mut writable = None;
    for (index, request) in batch.requests().iter().enumerate() {
        let MemorySource::File(file_index) = request.source else {
            continue;
        };
        let failed = |error| BatchError::at(index, error);
        if !maps_files {
            let message = "iommufd of this kernel cannot map files. Use Linux 6.13 or later (IOMMU_IOAS_MAP_FILE)";
            return Err(failed(Error::new(ErrorCode::Unsupported, message)));
        }
        let file = batch.file(file_index).map_err(failed)?;
        if let Some(device) = file.device() {
            bars.push_back(find_bar(device, request).map_err(failed)?);
        } else if request.writable && writable != Some(file_index) {
            check_writable(file, request).map_err(failed)?;
            writable = Some(file_index);
        }
    }
    Ok(bars)
}

fn find_bar(device: &Arc<DeviceInner>, request: &MapRequest) -> Result<Bar> {
    let requested = Range::new(request.offset, request.range.len())?;
    let dma_buf = device.dma_buf(&requested);
    let (buffer, start) = dma_buf.map_err(|error| error.at(request.range))?;
    Ok(Bar {
        buffer,
        start,
        mapping: device.begin_mapping()?,
    })
}

/// iommufd does not check this.
fn check_writable(file: &MemoryFile, request: &MapRequest) -> Result<()> {
    if file.is_writable()? {
        return Ok(());
    }
    let range = request.range;
    let message = format!(
        "mapping IOVA {range} for writing to a file that is open for reading, or sealed against writing: map it for \
         reading"
    );
    Err(Error::new(ErrorCode::MemoryFault, message).at(range))
}

/// Makes one mapping, of `bar` if it is given. Records the owner of the memory for as long as the mapping exists.
/// Adds owners to drop after the lock is released to `removed`.
fn map_one(
    open: &OpenIoas,
    request: &MapRequest,
    memory: Memory<'_>,
    bar: Option<Bar>,
    removed: &mut RemovedOwners,
) -> Result<MemoryOwner> {
    let (fd, ioas, range, start) = (open.fd(), open.id, &request.range, request.offset);
    let access = Access {
        read: true,
        write: request.writable,
    };
    let map_file =
        |file: BorrowedFd<'_>, start| ioctl::ioas_map_file(fd, ioas, range, file, start, access);
    let (answer, owner) = match (memory, bar) {
        (Memory::Leased(lease), _) => {
            // SAFETY: the lease keeps the memory mapped as it is. The record owns the lease until the kernel has
            // confirmed the unmap. Devices change the memory at any time; no Rust reference points into it.
            let answer = unsafe { ioctl::ioas_map(fd, ioas, range, lease.host_address(), access) };
            let failed = |errno| (errno, MAP, format!("{} of the reservation", lease.range()));
            (answer.map_err(failed), MemoryOwner::Memory(lease))
        }
        (Memory::File(_), Some(bar)) => {
            let failed = |errno| {
                (
                    errno,
                    MAP_FILE,
                    format!("{:#x} of {}", bar.start, bar.buffer),
                )
            };
            let answer = map_file(bar.buffer.fd(), bar.start).map_err(failed);
            (answer, MemoryOwner::Bar(bar.mapping))
        }
        (Memory::File(file), None) => {
            let failed = |errno| (errno, MAP_FILE, format!("{start:#x} of a file"));
            let answer = file.with_fd(|file| map_file(file, start))?;
            (answer.map_err(failed), MemoryOwner::File(file.kept_part()))
        }
    };
    match answer {
        Ok(()) => Ok(owner),
        Err((errno, syscall, operation)) => {
            removed.extend([owner]);
            let operation = format!("mapping IOVA {range} to {operation}");
            Err(Error::os(ErrorCode::MapFailed, errno, syscall, operation).at(*range))
        }
    }
}

impl Ioas {
    /// Makes all of the mappings or none: if one fails, unmaps those before it. With a device attached, the kernel
    /// pins the memory, which takes about a microsecond for each new page.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` with the IOVA range and the kernel's errno; `ERR_UNSUPPORTED` if the kernel cannot map files,
    /// or BARs; `ERR_CLOSED`. Pages of files may be allocated then.
    ///
    /// The errno is `EEXIST` (the range overlaps a mapping), `ENOMEM` (`RLIMIT_MEMLOCK`), `EFAULT` (the memory cannot
    /// be pinned) or `ENODEV` (the BAR is disabled). `EINVAL` means: unaligned, outside of the valid IOVA ranges, past
    /// the end of a file, or a file that cannot be mapped.
    pub fn map(&self, batch: Batch) -> Result<(), BatchError> {
        let attached = self.inner.unguarded.count.load(Ordering::Relaxed) > 0;
        let threads = |bytes| {
            if attached {
                memory::fault_in_threads(bytes)
            } else {
                1
            }
        };
        self.map_by(threads, batch)
    }

    /// As [`map`](Self::map), where `threads` returns the number of threads that fault in so many bytes.
    pub(super) fn map_by(
        &self,
        threads: impl Fn(u64) -> usize,
        mut batch: Batch,
    ) -> Result<(), BatchError> {
        let open = self.inner.open()?;
        // Before the lock: finding a BAR's dma-buf takes the device's lock.
        let mut bars = prepare(&batch, open.iommufd.maps_files())?;
        batch.fault_in()?;
        let is_file = |one: &&MapRequest| matches!(one.source, MemorySource::File(_));
        let bytes = batch
            .requests()
            .iter()
            .filter(is_file)
            .fold(0, |sum: u64, one| sum.saturating_add(one.range.len()));
        dropper::flush_before(bytes);
        batch.fault_in_files(threads)?;
        self.inner
            .map(&mut batch, |state, request, memory, removed| {
                let is_bar = matches!(memory, Memory::File(file) if file.is_device());
                let bar = if is_bar { bars.pop_front() } else { None };
                let owner = map_one(&state.open()?, request, memory, bar, removed)?;
                state.mappings.insert(request.range, owner, removed);
                Ok(())
            })
    }

    /// For each of the ranges, removes all mappings that lie wholly in it, one by one. A range can have gaps or be
    /// empty; if it cuts a mapping, nothing in it is removed. Returns the ranges that failed.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` with the range of a mapping that remains: the range cuts it, or the kernel failed or
    /// unmapped only a part of it (`ENOENT`: none). Its record keeps its memory; the mappings before it are removed.
    /// `ERR_CLOSED`.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], continue_after_failure: bool) -> Vec<(usize, Error)> {
        self.inner.unmap(ranges, continue_after_failure)
    }
}
