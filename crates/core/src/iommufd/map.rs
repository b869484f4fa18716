//! Mapping memory into an address space, and unmapping it.

use std::sync::Arc;

use nix::errno::Errno;

use super::ioas::{Ioas, IoasInner, Keeps, Open, State};
use super::ioctl::{self, Access};
use crate::dropper;
use crate::locked::lock;
use crate::memory::{Lease, MemoryFile};
use crate::vfio::{DeviceMapping, DmaBuf};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(IOMMU_IOAS_MAP)";
const MAP_FILE: &str = "ioctl(IOMMU_IOAS_MAP_FILE)";
const UNMAP: &str = "ioctl(IOMMU_IOAS_UNMAP)";

/// Memory to be mapped.
#[derive(Debug, Clone)]
pub enum Source {
    /// Memory of this process, which the mapping keeps until it is unmapped.
    Memory(Arc<Lease>),
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

/// A mapping to be made.
#[derive(Debug, Clone)]
pub struct MapRequest {
    /// Where devices see the memory.
    pub iova: u64,
    /// The memory.
    pub source: Source,
    /// Devices may read it.
    pub readable: bool,
    /// Devices may write it.
    pub writable: bool,
}

/// A request with its memory found.
struct Prepared<'a> {
    range: Range,
    access: Access,
    memory: Memory<'a>,
}

enum Memory<'a> {
    Lease(&'a Arc<Lease>),
    File {
        file: &'a MemoryFile,
        start: u64,
    },
    DmaBuf {
        buffer: Arc<DmaBuf>,
        start: u64,
        mapping: DeviceMapping,
    },
}

impl MapRequest {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let length = match &self.source {
            Source::Memory(lease) => lease.len(),
            Source::File { length, .. } => *length,
        };
        let range = Range::new(self.iova, length)?;
        let memory = match &self.source {
            Source::Memory(lease) => Memory::Lease(lease),
            Source::File { file, offset, .. } => match file.device() {
                None => {
                    // iommufd does not look.
                    if self.writable && !file.is_writable()? {
                        let message = format!(
                            "mapping IOVA {range} for writing to a file that is open for reading, or sealed against writing: map it for reading"
                        );
                        return Err(Error::new(ErrorCode::MemoryFault, message).at(range));
                    }
                    Memory::File {
                        file,
                        start: *offset,
                    }
                }
                Some(device) => {
                    let wanted = Range::new(*offset, length)?;
                    let (buffer, start) =
                        device.dma_buf(&wanted).map_err(|error| error.at(range))?;
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
            read: self.readable,
            write: self.writable,
        };
        Ok(Prepared {
            range,
            access,
            memory,
        })
    }
}

impl Prepared<'_> {
    /// Asks the kernel. What is to be kept while it has the mapping has to go on record.
    fn map(self, open: &Open) -> Result<Keeps> {
        let (fd, ioas) = (open.fd(), open.id);
        let Self {
            range,
            access,
            memory,
        } = self;
        let failed = |errno, syscall, what: String| {
            let what = format!("mapping IOVA {range} to {what}");
            Error::os(ErrorCode::MapFailed, errno, syscall, what).at(range)
        };
        match memory {
            Memory::Lease(lease) => {
                // SAFETY: the lease keeps that memory mapped as it is. The caller's record keeps the lease until the
                // kernel has confirmed that the mapping is gone. Devices change the memory at will; no Rust reference
                // points into it.
                unsafe { ioctl::ioas_map(fd, ioas, &range, lease.host_address(), access) }
                    .map_err(|errno| {
                        failed(errno, MAP, format!("{} of the reservation", lease.range()))
                    })?;
                Ok(Keeps::Memory(Arc::clone(lease)))
            }
            Memory::File { file, start } => {
                file.with_fd(|fd_of| ioctl::ioas_map_file(fd, ioas, &range, fd_of, start, access))?
                    .map_err(|errno| failed(errno, MAP_FILE, format!("{start:#x} of a file")))?;
                Ok(Keeps::File(file.kept_part()))
            }
            Memory::DmaBuf {
                buffer,
                start,
                mapping,
            } => {
                ioctl::ioas_map_file(fd, ioas, &range, buffer.fd(), start, access)
                    .map_err(|errno| failed(errno, MAP_FILE, format!("{start:#x} of {buffer}")))?;
                Ok(Keeps::Bar(mapping))
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
    /// where the kernel maps no files, or no BARs. `ERR_UNMAP_FAILED` naming the IOVA range of a mapping that could
    /// not be undone: mappings that are still there stay on record. `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn map(&self, requests: &[MapRequest]) -> Result<()> {
        // Before the lock: finding a BAR's dma-buf takes the device's.
        let prepared = requests
            .iter()
            .map(MapRequest::prepare)
            .collect::<Result<Vec<Prepared<'_>>>>()?;
        let open = self.inner.open()?;
        let by_file = |memory: &Memory<'_>| !matches!(memory, Memory::Lease(_));
        if !open.iommufd.maps_files()
            && let Some(one) = prepared.iter().find(|one| by_file(&one.memory))
        {
            let message = "this kernel's iommufd maps no files (IOMMU_IOAS_MAP_FILE is in Linux 6.13 and later)";
            return Err(Error::new(ErrorCode::Unsupported, message).at(one.range));
        }
        // The kernel allocates the pages of a file that are not there yet.
        let bytes = prepared
            .iter()
            .filter(|one| matches!(one.memory, Memory::File { .. }))
            .fold(0, |sum: u64, one| sum.saturating_add(one.range.len()));
        dropper::settle_before(bytes);
        // Declared before the lock, so that leases are dropped after it is released.
        let mut undone: Vec<Keeps> = Vec::new();
        let mut state = lock(&self.inner.state);
        let open = state.open()?;
        let mut result = Ok(());
        let mut done = Vec::with_capacity(prepared.len());
        // What is left of the requests is dropped after the lock.
        let mut rest = prepared.into_iter();
        for one in rest.by_ref() {
            let range = one.range;
            match one.map(&open) {
                Ok(keeps) => {
                    undone.extend(state.mappings.insert(range, keeps));
                    done.push(range);
                }
                Err(error) => {
                    result = Err(state.undo(&open, &done, error, &mut undone));
                    break;
                }
            }
        }
        self.inner.publish_count(&state);
        drop(state);
        drop((undone, rest));
        result
    }

    /// Removes all mappings that lie wholly in `length` bytes from `iova`, each by itself. Gaps are fine, and so is nothing
    /// at all; where a mapping sticks out, nothing is removed.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` naming the range of a mapping that is still there: it sticks out, or the kernel refused, or had
    /// not all of it (`ENOENT`: none). Its record, and what that keeps alive, stays; those before it are gone.
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<()> {
        let range = Range::new(iova, length)?;
        let mut gone: Vec<Keeps> = Vec::new();
        let mut state = lock(&self.inner.state);
        let open = state.open()?;
        if let Some(cut) = state.mappings.cut_by(&range) {
            let message = format!("unmapping IOVA {range} would cut the mapping {cut}");
            return Err(Error::new(ErrorCode::UnmapFailed, message).at(cut));
        }
        let mut result = Ok(());
        for one in state.mappings.ranges_within(&range) {
            result = unmap_one(&open, &one);
            if result.is_err() {
                break;
            }
            gone.extend(state.mappings.take_within(&one));
        }
        self.inner.publish_count(&state);
        drop(state);
        drop(gone);
        result
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
    /// Unmaps what a failed batch had mapped. What records kept goes to `undone`.
    fn undo(
        &mut self,
        open: &Open,
        done: &[Range],
        error: Error,
        undone: &mut Vec<Keeps>,
    ) -> Error {
        let mut error = error;
        for range in done.iter().rev() {
            match unmap_one(open, range) {
                Ok(()) => undone.extend(self.mappings.take_within(range)),
                Err(stuck) => error = error.with_failed_undo(*range, &stuck),
            }
        }
        error
    }
}

/// Unmaps exactly one mapping that is on record.
fn unmap_one(open: &Open, range: &Range) -> Result<()> {
    let answer = ioctl::ioas_unmap(open.fd(), open.id, range.start(), range.len());
    check_unmapped(range, range.len(), answer).map_err(|error| error.at(*range))
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
