//! Memory with a file descriptor: memfds, files of the caller, and VFIO devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use nix::sys::stat::fstat;

use super::memory_fd::MemoryFd;
use crate::vfio::{DeviceInner, DeviceMapping};
use crate::{Error, ErrorCode, Range, Result};

pub(super) const NO_NODE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) enum Kind {
    Memory {
        fd: MemoryFd,
        /// The length, if it is sealed.
        fixed: Option<u64>,
        hugetlb: bool,
        page_size: u64,
        node: AtomicU32,
        /// The accesses with which the kernel has mapped parts of the file: 1 for reading, 2 for writing.
        mapped: AtomicU8,
        /// The caller has the descriptor, and may have allocated pages with it.
        is_shared_with_caller: AtomicBool,
    },
    Device {
        device: Arc<DeviceInner>,
        page_size: u64,
    },
}

/// Memory of a file descriptor, which can be mapped in a reservation and for DMA. Clones share it. A mapping in a
/// reservation keeps the memory after the last clone is dropped.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    pub(super) kind: Arc<Kind>,
    /// The part that the handle refers to; `None` for the whole file. Its memory is released with its last owner.
    pub(super) part: Option<Arc<Range>>,
}

impl MemoryFile {
    /// Whether this is a VFIO device's file.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device().is_some()
    }

    /// Returns the device, if this is a device's file.
    pub(crate) fn device(&self) -> Option<&Arc<DeviceInner>> {
        match &*self.kind {
            Kind::Memory { .. } => None,
            Kind::Device { device, .. } => Some(device),
        }
    }

    /// Returns the file descriptor's number; the file still owns it. A device does not return its descriptor: a write
    /// to config space through it could disable memory during an access.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a device.
    pub fn fd(&self) -> Result<RawFd> {
        match &*self.kind {
            Kind::Memory {
                fd,
                is_shared_with_caller,
                ..
            } => {
                is_shared_with_caller.store(true, Ordering::Relaxed);
                Ok(fd.as_raw_fd())
            }
            Kind::Device { .. } => Err(Error::new(
                ErrorCode::InvalidArgument,
                "a device does not expose its file descriptor",
            )),
        }
    }

    /// Returns the length in bytes, read from the kernel unless it is sealed. A device has no length itself (its
    /// regions do): 2^64 - 1.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn length(&self) -> Result<u64> {
        match &*self.kind {
            Kind::Memory {
                fixed: Some(length),
                ..
            } => Ok(*length),
            Kind::Memory { fd, .. } => {
                let stat = fstat(fd).map_err(|errno| {
                    Error::os(ErrorCode::System, errno, "fstat", "reading a file's length")
                })?;
                Ok(u64::try_from(stat.st_size).unwrap_or(0))
            }
            Kind::Device { .. } => Ok(u64::MAX),
        }
    }

    /// Whether the file has memory up to the byte before `end` now. A file can be truncated, and the memory decode of a
    /// device can be off.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn is_present(&self, end: u64) -> Result<bool> {
        match &*self.kind {
            Kind::Memory { .. } => Ok(end <= self.length()?),
            Kind::Device { device, .. } => Ok(device.is_accessible()),
        }
    }

    /// The page size in bytes. Offsets, lengths and addresses must be multiples of it.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        match *self.kind {
            Kind::Memory { page_size, .. } | Kind::Device { page_size, .. } => page_size,
        }
    }

    /// Whether the length is sealed, so that every page can always be accessed. (Punching a hole releases pages; the
    /// next access allocates zero pages.)
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(*self.kind, Kind::Memory { fixed: Some(_), .. })
    }

    /// Whether the pages come from the hugetlb pool.
    pub(crate) fn is_hugetlb(&self) -> bool {
        matches!(*self.kind, Kind::Memory { hugetlb: true, .. })
    }

    /// Calls `f` with the descriptor, which stays open during the call.
    pub(crate) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T> {
        match &*self.kind {
            Kind::Memory { fd, .. } => Ok(f(fd.as_fd())),
            Kind::Device { device, .. } => device.with_fd(f),
        }
    }

    /// Whether the kernel accepts such a mapping of any part: it has accepted one of some part. Always `false` for
    /// devices and hugetlbfs files, which can reject single parts, and for files that can receive a write seal later.
    pub(super) fn is_mappable(&self, writable: bool) -> bool {
        match &*self.kind {
            Kind::Memory {
                mapped,
                fixed: Some(_),
                hugetlb: false,
                ..
            } => mapped.load(Ordering::Relaxed) & mapped_bit(writable) != 0,
            _ => false,
        }
    }

    /// Records that the kernel has mapped a part of the file.
    pub(super) fn set_mappable(&self, writable: bool) {
        if let Kind::Memory { mapped, .. } = &*self.kind {
            mapped.fetch_or(mapped_bit(writable), Ordering::Relaxed);
        }
    }

    /// Registers a mapping of the file: a device cannot be closed until the returned value is dropped.
    pub(crate) fn begin_mapping(&self) -> Result<Option<DeviceMapping>> {
        match &*self.kind {
            Kind::Memory { .. } => Ok(None),
            Kind::Device { device, .. } => device.begin_mapping().map(Some),
        }
    }
}

const fn mapped_bit(writable: bool) -> u8 {
    if writable { 2 } else { 1 }
}
