//! Reads and writes a device's regions through its file.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::abi::VFIO_PCI_CONFIG_REGION_INDEX;
use super::device::{Device, DeviceInner};
use super::info::RegionInfo;
use crate::locked::{read, write};
use crate::memory::{self, ByteSink, ByteSource, Window};
use crate::range::{to_offset, to_u64};
use crate::{Error, ErrorCode, Range, Result};

/// A mapped part of a region.
#[derive(Debug)]
pub(super) struct RegionWindow {
    pub(super) index: u32,
    /// The area, from the region's start.
    pub(super) area: Range,
    pub(super) window: Window,
}

/// Whether the region is config space, in which a write may disable the device's memory.
pub(super) const fn is_config(index: u32) -> bool {
    index == VFIO_PCI_CONFIG_REGION_INDEX
}

impl Device {
    /// Fills `into` from `offset` of a region, in accesses of widths that the kernel chooses.
    ///
    /// # Errors
    /// `ERR_NO_SUCH_REGION`, `ERR_OUT_OF_RANGE`, `ERR_BAR_DISABLED`, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn read_region<'a>(
        &self,
        index: u32,
        offset: u64,
        into: impl Into<ByteSink<'a>>,
    ) -> Result<()> {
        let into = into.into();
        let Some((region, range)) = self.inner.locate(index, offset, into.len())? else {
            return Ok(());
        };
        let open = read(&self.inner.open);
        let fd = self.inner.expect_open(open.as_ref())?.fd.as_fd();
        self.inner.read_file(fd, index, region, &range, into)
    }

    /// Writes `from` at `offset` of a region, in accesses of widths that the kernel chooses.
    ///
    /// # Errors
    /// As [`read_region`](Self::read_region).
    pub fn write_region<'a>(
        &self,
        index: u32,
        offset: u64,
        from: impl Into<ByteSource<'a>>,
    ) -> Result<()> {
        let from = from.into();
        let Some((region, range)) = self.inner.locate(index, offset, from.len())? else {
            return Ok(());
        };
        self.inner.write_locked(index, region, &range, from)
    }
}

impl DeviceInner {
    /// Returns the region of that index.
    pub(super) fn region(&self, index: u32) -> Result<&RegionInfo> {
        let region = usize::try_from(index)
            .ok()
            .and_then(|index| self.regions.get(index))
            .and_then(Option::as_ref);
        region.ok_or_else(|| {
            Error::new(
                ErrorCode::NoSuchRegion,
                format!("device {} has no region {index}", self.name),
            )
        })
    }

    /// Returns a region and a checked part of it, or `None` if the part is empty.
    fn locate(
        &self,
        index: u32,
        offset: u64,
        length: usize,
    ) -> Result<Option<(&RegionInfo, Range)>> {
        let region = self.region(index)?;
        if length == 0 && offset <= region.length {
            return Ok(None);
        }
        let range = Range::new(offset, to_u64(length.max(1)))?;
        self.check_within(index, region, &range)?;
        Ok(Some((region, range)))
    }

    pub(super) fn check_within(
        &self,
        index: u32,
        region: &RegionInfo,
        range: &Range,
    ) -> Result<()> {
        range.check_within(
            region.length,
            format_args!("region {index} of device {}", self.name),
        )
    }

    /// Writes through the file; a write to config space locks the device exclusively.
    pub(super) fn write_locked(
        &self,
        index: u32,
        region: &RegionInfo,
        range: &Range,
        from: ByteSource<'_>,
    ) -> Result<()> {
        if is_config(index) {
            // A copy, so that the checked bytes are the written bytes, even if others change the source meanwhile.
            let from = from.to_vec();
            let open = write(&self.open);
            let fd = self.expect_open(open.as_ref())?.fd.as_fd();
            let resets = self.would_reset(fd, range.start(), &from);
            let result = self.write_file(fd, index, region, range, (&from).into());
            if resets {
                self.was_reset(fd);
            } else {
                self.refresh(fd);
            }
            return result;
        }
        let open = read(&self.open);
        let fd = self.expect_open(open.as_ref())?.fd.as_fd();
        self.write_file(fd, index, region, range, from)
    }

    pub(super) fn read_file(
        &self,
        fd: BorrowedFd<'_>,
        index: u32,
        region: &RegionInfo,
        range: &Range,
        into: ByteSink<'_>,
    ) -> Result<()> {
        let at = to_offset(region.file_offset.saturating_add(range.start()))?;
        self.copied(memory::read_file(fd, into, at), "pread", index, range)
    }

    fn write_file(
        &self,
        fd: BorrowedFd<'_>,
        index: u32,
        region: &RegionInfo,
        range: &Range,
        from: ByteSource<'_>,
    ) -> Result<()> {
        let at = to_offset(region.file_offset.saturating_add(range.start()))?;
        self.copied(memory::write_file(fd, from, at), "pwrite", index, range)
    }

    /// Converts the result of a read or write of a region.
    fn copied(
        &self,
        result: nix::Result<bool>,
        syscall: &'static str,
        index: u32,
        range: &Range,
    ) -> Result<()> {
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failed(index, range, Errno::EIO, syscall)),
            Err(errno) => Err(self.failed(index, range, errno, syscall)),
        }
    }

    fn failed(&self, index: u32, range: &Range, errno: Errno, syscall: &'static str) -> Error {
        let disabled = errno == Errno::EIO && !is_config(index) && !self.is_accessible();
        let code = if disabled {
            ErrorCode::BarDisabled
        } else {
            ErrorCode::System
        };
        Error::os(
            code,
            errno,
            syscall,
            format!("{range} of region {index} of device {}", self.name),
        )
    }
}
