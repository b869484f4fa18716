//! Memory that has a file descriptor: memfds, files given by the caller, and VFIO devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::sys::stat::fstat;

use super::memory_fd::MemoryFd;
use crate::vfio::{DeviceInner, DeviceMapping};
use crate::{Error, ErrorCode, Range, Result};

pub(super) const NO_NODE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) enum Kind {
    Memory {
        fd: MemoryFd,
        /// Its length, if that is sealed for good.
        fixed: Option<u64>,
        hugetlb: bool,
        page_size: u64,
        node: AtomicU32,
        /// The kernel has mapped parts of it for reading (1), for writing (2).
        mapped: AtomicU8,
    },
    Device {
        device: Arc<DeviceInner>,
        page_size: u64,
    },
}

/// Memory behind a file descriptor, which can be placed in a reservation and mapped for DMA.
/// Clones share it. What is placed in a reservation stays alive there after the last clone is gone.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    pub(super) kind: Arc<Kind>,
    /// The part that this handle is for; `None` for the whole file. Its memory is released with its last owner.
    pub(super) part: Option<Arc<Range>>,
}

impl MemoryFile {
    /// Whether it is a VFIO device's file.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device().is_some()
    }

    /// The device whose file it is.
    pub(crate) fn device(&self) -> Option<&Arc<DeviceInner>> {
        match &*self.kind {
            Kind::Memory { .. } => None,
            Kind::Device { device, .. } => Some(device),
        }
    }

    /// The number of its file descriptor, which stays owned by this file. A device's is not given
    /// away: who wrote its config space through it could turn memory off that is about to be read.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a device.
    pub fn fd(&self) -> Result<RawFd> {
        match &*self.kind {
            Kind::Memory { fd, .. } => Ok(fd.as_raw_fd()),
            Kind::Device { .. } => Err(Error::new(
                ErrorCode::InvalidArgument,
                "a device keeps its file descriptor to itself",
            )),
        }
    }

    /// Its present length in bytes, asked of the kernel unless it is sealed. A device has no length of its
    /// own (its regions do): 2^64 - 1.
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

    /// Whether it has memory now, up to the byte before `end`: a file may have been truncated, a
    /// device's memory decode turned off.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn is_present(&self, end: u64) -> Result<bool> {
        match &*self.kind {
            Kind::Memory { .. } => Ok(end <= self.length()?),
            Kind::Device { device, .. } => Ok(device.is_accessible()),
        }
    }

    /// The size of its pages in bytes: what offsets, lengths and addresses must be multiples of.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        match *self.kind {
            Kind::Memory { page_size, .. } | Kind::Device { page_size, .. } => page_size,
        }
    }

    /// Whether its length is sealed, so that every page of it can always be touched. (A hole punched
    /// into it takes pages out; they come back, zero, when touched again.)
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(*self.kind, Kind::Memory { fixed: Some(_), .. })
    }

    /// Whether its pages come from the hugetlb pool.
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

    /// Whether the kernel maps any part of it like that: it has mapped some part. Never known of devices and of files
    /// of hugetlbfs, which refuse single parts, and of files that may be sealed against writing later.
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

    /// To be called when the kernel has mapped a part of it.
    pub(super) fn set_mappable(&self, writable: bool) {
        if let Kind::Memory { mapped, .. } = &*self.kind {
            mapped.fetch_or(mapped_bit(writable), Ordering::Relaxed);
        }
    }

    /// Announces a mapping of the file: a device can't be closed until what this returns is dropped.
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
