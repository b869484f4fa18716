//! Mapping memory into an address space, and unmapping it.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::ioas::{Gone, Ioas, IoasInner, Keeps, Open, State};
use super::ioctl::{self, Access};
use crate::batch::{Batch, BatchError, MapRequest, Memory, Source, unmap_each};
use crate::dropper;
use crate::locked::lock;
use crate::memory::MemoryFile;
use crate::vfio::{DeviceInner, DeviceMapping, DmaBuf};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(IOMMU_IOAS_MAP)";
const MAP_FILE: &str = "ioctl(IOMMU_IOAS_MAP_FILE)";
const UNMAP: &str = "ioctl(IOMMU_IOAS_UNMAP)";

/// Part of a BAR that is to be mapped, and the hold on its device.
struct Bar {
    buffer: Arc<DmaBuf>,
    start: u64,
    mapping: DeviceMapping,
}

/// Finds the BARs of a batch, in the order of their requests, and checks the files that are not devices'.
fn prepare(batch: &Batch, maps_files: bool) -> Result<VecDeque<Bar>, BatchError> {
    let mut bars = VecDeque::new();
    let mut writable = None;
    for (index, request) in batch.requests().iter().enumerate() {
        let Source::File(which) = request.source else {
            continue;
        };
        let failed = |error| BatchError::at(index, error);
        if !maps_files {
            let message = "this kernel's iommufd maps no files (IOMMU_IOAS_MAP_FILE is in Linux 6.13 and later)";
            return Err(failed(Error::new(ErrorCode::Unsupported, message)));
        }
        let file = batch.file(which).map_err(failed)?;
        if let Some(device) = file.device() {
            bars.push_back(find_bar(device, request).map_err(failed)?);
        } else if request.writable && writable != Some(which) {
            check_writable(file, request).map_err(failed)?;
            writable = Some(which);
        }
    }
    Ok(bars)
}

fn find_bar(device: &Arc<DeviceInner>, request: &MapRequest) -> Result<Bar> {
    let wanted = Range::new(request.offset, request.range.len())?;
    let dma_buf = device.dma_buf(&wanted);
    let (buffer, start) = dma_buf.map_err(|error| error.at(request.range))?;
    Ok(Bar {
        buffer,
        start,
        mapping: device.begin_mapping()?,
    })
}

/// iommufd does not look.
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

/// Asks the kernel for a mapping, of `bar` if it is one. What is to be kept while the kernel has the mapping has to go on
/// record; what is to be dropped after the lock goes to `gone`.
fn map_one(
    open: &Open,
    request: &MapRequest,
    memory: Memory<'_>,
    bar: Option<Bar>,
    gone: &mut Gone,
) -> Result<Keeps> {
    let (fd, ioas, range, start) = (open.fd(), open.id, &request.range, request.offset);
    let access = Access {
        read: true,
        write: request.writable,
    };
    let map_file =
        |file: BorrowedFd<'_>, start| ioctl::ioas_map_file(fd, ioas, range, file, start, access);
    let (answer, keeps) = match (memory, bar) {
        (Memory::Leased(lease), _) => {
            // SAFETY: the lease keeps that memory mapped as it is. The caller's record keeps the lease until the
            // kernel has confirmed that the mapping is gone. Devices change the memory at will; no Rust reference
            // points into it.
            let answer = unsafe { ioctl::ioas_map(fd, ioas, range, lease.host_address(), access) };
            let failed = |errno| (errno, MAP, format!("{} of the reservation", lease.range()));
            (answer.map_err(failed), Keeps::Memory(lease))
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
            (answer, Keeps::Bar(bar.mapping))
        }
        (Memory::File(file), None) => {
            let failed = |errno| (errno, MAP_FILE, format!("{start:#x} of a file"));
            let answer = file.with_fd(|file| map_file(file, start))?;
            (answer.map_err(failed), Keeps::File(file.kept_part()))
        }
    };
    match answer {
        Ok(()) => Ok(keeps),
        Err((errno, syscall, what)) => {
            gone.extend([keeps]);
            let what = format!("mapping IOVA {range} to {what}");
            Err(Error::os(ErrorCode::MapFailed, errno, syscall, what).at(*range))
        }
    }
}

impl Ioas {
    /// Makes all of the mappings, or none: when one fails, those before it are unmapped again. With a device attached,
    /// the memory is pinned; that takes about a microsecond per page which is new.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` naming the IOVA range, with the kernel's errno (`EEXIST`: something is mapped there; `EINVAL`:
    /// not aligned, not in a valid IOVA range, past the end of a file, or no file that can be mapped; `ENOMEM`:
    /// `RLIMIT_MEMLOCK`; `EFAULT`: the memory can't be pinned; `ENODEV`: a BAR that does not answer). `ERR_UNSUPPORTED`
    /// where the kernel maps no files, or no BARs. `ERR_CLOSED`.
    pub fn map(&self, mut batch: Batch) -> Result<(), BatchError> {
        let open = self.inner.open()?;
        // Before the lock: finding a BAR's dma-buf takes the device's.
        let mut bars = prepare(&batch, open.iommufd.maps_files())?;
        batch.fault_in()?;
        // The kernel allocates the pages of a file that are not there yet.
        let is_file = |one: &&MapRequest| matches!(one.source, Source::File(_));
        let bytes = batch
            .requests()
            .iter()
            .filter(is_file)
            .fold(0, |sum: u64, one| sum.saturating_add(one.range.len()));
        dropper::settle_before(bytes);
        // Declared before the lock, so that leases are dropped after it is released.
        let (mut gone, mut undone) = (Gone::default(), Gone::default());
        let mut state = lock(&self.inner.state);
        let open = state.open()?;
        let result = batch.map(
            &mut *state,
            |state, request, memory| {
                let is_bar = matches!(memory, Memory::File(file) if file.is_device());
                let bar = if is_bar { bars.pop_front() } else { None };
                let keeps = map_one(&open, request, memory, bar, &mut gone)?;
                state.mappings.insert(request.range, keeps, &mut gone);
                Ok(())
            },
            |state, range| state.unmap_one(&open, range, &mut undone),
        );
        self.inner.publish_count(&state);
        drop(state);
        result
    }

    /// Removes, for each of the ranges, all mappings that lie wholly in it, each by itself. Gaps are fine, and so is
    /// nothing at all; where a mapping sticks out, nothing of that range is removed. Returns which of the ranges
    /// failed; without `all` it stops at the first.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` naming the range of a mapping that is still there: it sticks out, or the kernel refused, or had
    /// not all of it (`ENOENT`: none). Its record, and what that keeps alive, stays; those before it are gone.
    /// `ERR_CLOSED`.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], all: bool) -> Vec<(usize, Error)> {
        let mut gone = Gone::default();
        let mut state = lock(&self.inner.state);
        let failures = unmap_each(ranges, all, |range| {
            let open = state.open()?;
            if let Some(cut) = state.mappings.cut_by(range) {
                let message = format!("unmapping IOVA {range} would cut the mapping {cut}");
                return Err(Error::new(ErrorCode::UnmapFailed, message).at(cut));
            }
            while let Some(one) = state.mappings.next_within(range) {
                state.unmap_one(&open, &one, &mut gone)?;
            }
            Ok(())
        });
        self.inner.publish_count(&state);
        drop(state);
        failures
    }
}

impl IoasInner {
    /// Removes all mappings. When the kernel succeeds it has none left, whatever size it reports; when it refuses, the
    /// records, and what they keep alive, stay as they are.
    pub(super) fn unmap_all(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let open = state.open()?;
        match ioctl::ioas_unmap(open.fd(), open.id, 0, u64::MAX) {
            // Some kernels answer ENOENT where there is nothing at all.
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(unmap_refused(&Range::new(0, u64::MAX)?, errno)),
        }
        let gone: Gone = state.mappings.take_all().collect();
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }
}

impl State {
    /// Removes exactly one mapping that is on record. What its record kept goes to `gone`.
    fn unmap_one(&mut self, open: &Open, range: &Range, gone: &mut Gone) -> Result<()> {
        let answer = ioctl::ioas_unmap(open.fd(), open.id, range.start(), range.len());
        check_unmapped(range, range.len(), answer).map_err(|error| error.at(*range))?;
        self.mappings.take_within(range, gone);
        Ok(())
    }
}

/// What an unmap came to: the kernel's answer must be what the records say.
fn check_unmapped(range: &Range, expected: u64, answer: nix::Result<u64>) -> Result<()> {
    match answer {
        Ok(size) if size == expected => Ok(()),
        // Some kernels say so where there is nothing at all.
        Err(Errno::ENOENT) if expected == 0 => Ok(()),
        Ok(size) => {
            let message = format!(
                "unmapping IOVA {range}: the kernel unmapped {size:#x} bytes, but {expected:#x} bytes were mapped there"
            );
            Err(Error::new(ErrorCode::UnmapFailed, message))
        }
        Err(errno) => Err(unmap_refused(range, errno)),
    }
}

/// The kernel has refused to unmap `range`.
fn unmap_refused(range: &Range, errno: Errno) -> Error {
    let what = format!("unmapping IOVA {range}");
    Error::os(ErrorCode::UnmapFailed, errno, UNMAP, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unmap_must_agree_with_the_records() {
        let range = Range::new(0x1000, 0x3000).unwrap();
        check_unmapped(&range, 0x3000, Ok(0x3000)).unwrap();
        check_unmapped(&range, 0, Ok(0)).unwrap();
        check_unmapped(&range, 0, Err(Errno::ENOENT)).unwrap();
        let missing = check_unmapped(&range, 0x3000, Err(Errno::ENOENT)).unwrap_err();
        assert_eq!(
            (missing.code(), missing.errno()),
            (ErrorCode::UnmapFailed, Some(Errno::ENOENT))
        );
        let wrong = check_unmapped(&range, 0x3000, Ok(0x1000)).unwrap_err();
        assert_eq!(wrong.code(), ErrorCode::UnmapFailed);
        assert!(wrong.message().contains("0x1000 bytes"), "{wrong}");
    }
}
