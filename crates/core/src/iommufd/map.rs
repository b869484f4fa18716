//! Mapping memory into an address space, and unmapping it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::ioas::{Ioas, IoasInner, Keeps, Open, State};
use super::ioctl::{self, Access};
use crate::batch::{BatchError, MapRequest, Source, map_all, prepare_all, unmap_each};
use crate::dropper;
use crate::locked::lock;
use crate::memory::{Lease, MemoryFile};
use crate::vfio::{DeviceMapping, DmaBuf};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(IOMMU_IOAS_MAP)";
const MAP_FILE: &str = "ioctl(IOMMU_IOAS_MAP_FILE)";
const UNMAP: &str = "ioctl(IOMMU_IOAS_UNMAP)";

/// A request with its memory found.
struct Prepared {
    range: Range,
    access: Access,
    memory: Memory,
}

enum Memory {
    Lease(Lease),
    File {
        file: MemoryFile,
        start: u64,
    },
    DmaBuf {
        buffer: Arc<DmaBuf>,
        start: u64,
        mapping: DeviceMapping,
    },
}

fn prepare(request: MapRequest) -> Result<Prepared> {
    let range = request.range()?;
    let memory = match request.source {
        Source::Memory(lease) => Memory::Lease(lease),
        Source::File { file, offset, .. } => match file.device() {
            None => {
                // iommufd does not look.
                if request.writable && !file.is_writable()? {
                    let message = format!(
                        "mapping IOVA {range} for writing to a file that is open for reading, or sealed \
                         against writing: map it for reading"
                    );
                    return Err(Error::new(ErrorCode::MemoryFault, message).at(range));
                }
                Memory::File {
                    file,
                    start: offset,
                }
            }
            Some(device) => {
                let wanted = Range::new(offset, range.len())?;
                let (buffer, start) = device.dma_buf(&wanted).map_err(|error| error.at(range))?;
                let mapping = device.begin_mapping()?;
                Memory::DmaBuf {
                    buffer,
                    start,
                    mapping,
                }
            }
        },
    };
    let access = Access {
        read: true,
        write: request.writable,
    };
    Ok(Prepared {
        range,
        access,
        memory,
    })
}

impl Prepared {
    /// Asks the kernel. What is to be kept while it has the mapping has to go on record; what is to be dropped after
    /// the lock goes to `gone`.
    fn map(self, open: &Open, gone: &mut Vec<Keeps>) -> Result<Keeps> {
        let (fd, ioas) = (open.fd(), open.id);
        let Self {
            range,
            access,
            memory,
        } = self;
        let (syscall, what, answer, keeps) = match memory {
            Memory::Lease(lease) => {
                // SAFETY: the lease keeps that memory mapped as it is. The caller's record keeps the lease until the
                // kernel has confirmed that the mapping is gone. Devices change the memory at will; no Rust reference
                // points into it.
                let answer =
                    unsafe { ioctl::ioas_map(fd, ioas, &range, lease.host_address(), access) };
                let what = lease.range().to_string() + " of the reservation";
                (MAP, what, answer, Keeps::Memory(lease))
            }
            Memory::File { file, start } => {
                let call = |fd_of: BorrowedFd<'_>| {
                    ioctl::ioas_map_file(fd, ioas, &range, fd_of, start, access)
                };
                let answer = match file.with_fd(call) {
                    Ok(answer) => answer,
                    Err(error) => {
                        gone.push(Keeps::File(Some(file)));
                        return Err(error);
                    }
                };
                let what = format!("{start:#x} of a file");
                (MAP_FILE, what, answer, Keeps::File(file.kept_part()))
            }
            Memory::DmaBuf {
                buffer,
                start,
                mapping,
            } => {
                let answer = ioctl::ioas_map_file(fd, ioas, &range, buffer.fd(), start, access);
                let what = format!("{start:#x} of {buffer}");
                (MAP_FILE, what, answer, Keeps::Bar(mapping))
            }
        };
        match answer {
            Ok(()) => Ok(keeps),
            Err(errno) => {
                gone.push(keeps);
                let what = format!("mapping IOVA {range} to {what}");
                Err(Error::os(ErrorCode::MapFailed, errno, syscall, what).at(range))
            }
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
    /// where the kernel maps no files, or no BARs. `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn map(&self, requests: Vec<MapRequest>) -> Result<(), BatchError> {
        // Before the lock: finding a BAR's dma-buf takes the device's.
        let prepared = prepare_all(requests, prepare)?;
        let by_file = |one: &Prepared| !matches!(one.memory, Memory::Lease(_));
        if !self.inner.open()?.iommufd.maps_files()
            && let Some(index) = prepared.iter().position(by_file)
        {
            let message = "this kernel's iommufd maps no files (IOMMU_IOAS_MAP_FILE is in Linux 6.13 and later)";
            return Err(BatchError::at(
                index,
                Error::new(ErrorCode::Unsupported, message),
            ));
        }
        // The kernel allocates the pages of a file that are not there yet.
        let bytes = prepared
            .iter()
            .filter(|one| matches!(one.memory, Memory::File { .. }))
            .fold(0, |sum: u64, one| sum.saturating_add(one.range.len()));
        dropper::settle_before(bytes);
        // Declared before the lock, so that leases are dropped after it is released.
        let (mut gone, mut undone) = (Vec::new(), Vec::new());
        let mut rest = prepared.into_iter();
        let mut state = lock(&self.inner.state);
        let open = state.open()?;
        let result = map_all(
            &mut *state,
            rest.by_ref(),
            |state, one| {
                let range = one.range;
                let keeps = one.map(&open, &mut gone)?;
                state.mappings.insert(range, keeps, &mut gone);
                Ok(range)
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
        let mut gone: Vec<Keeps> = Vec::new();
        let mut state = lock(&self.inner.state);
        let failures = unmap_each(ranges, all, |range| {
            let open = state.open()?;
            if let Some(cut) = state.mappings.cut_by(range) {
                let message = format!("unmapping IOVA {range} would cut the mapping {cut}");
                return Err(Error::new(ErrorCode::UnmapFailed, message).at(cut));
            }
            for one in state.mappings.ranges_within(range) {
                state.unmap_one(&open, &one, &mut gone)?;
            }
            Ok(())
        });
        self.inner.publish_count(&state);
        drop(state);
        failures
    }

    /// Removes all mappings. When the kernel succeeds it has none left, whatever size it reports.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` when the kernel refuses: the records, and what they keep alive, stay as they are.
    /// `ERR_CLOSED`.
    pub fn unmap_all(&self) -> Result<()> {
        self.inner.unmap_all()
    }
}

impl IoasInner {
    pub(super) fn unmap_all(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let open = state.open()?;
        match ioctl::ioas_unmap(open.fd(), open.id, 0, u64::MAX) {
            // Some kernels answer ENOENT where there is nothing at all.
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(unmap_refused(&Range::new(0, u64::MAX)?, errno)),
        }
        let gone = state.mappings.take_all();
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }
}

impl State {
    /// Removes exactly one mapping that is on record. What its record kept goes to `gone`.
    fn unmap_one(&mut self, open: &Open, range: &Range, gone: &mut Vec<Keeps>) -> Result<()> {
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
