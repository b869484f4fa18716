//! A device's own log of the pages that it writes by DMA.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::device::Device;
use super::ioctl_migration as ioctl;
use crate::bitmap::words_of;
use crate::locked::read;
use crate::{Error, ErrorCode, Range, Result};

const FEATURE: &str = "ioctl(VFIO_DEVICE_FEATURE)";

impl Device {
    /// Returns whether the device has a log.
    ///
    /// # Errors
    /// `ERR_CLOSED`.
    pub fn has_dma_log(&self) -> Result<bool> {
        Ok(self.inner.with_fd(ioctl::probe_dma_log)?.is_ok())
    }

    /// Starts to log DMA writes to these ranges. A driver may log more, in larger pages.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if it has no log, or for more ranges than it supports; `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn start_dma_log(&self, ranges: &[Range], page_size: u64) -> Result<()> {
        self.inner
            .with_fd(|fd| ioctl::start_dma_log(fd, ranges, page_size))?
            .map_err(|errno| self.log_error(errno, "starting its log of DMA writes"))
    }

    /// Stops logging.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if it has no log; `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn stop_dma_log(&self) -> Result<()> {
        self.inner
            .with_fd(ioctl::stop_dma_log)?
            .map_err(|errno| self.log_error(errno, "stopping its log of DMA writes"))
    }

    /// Returns one bit for each page of `range`, and clears the log of the range.
    ///
    /// The first page is bit 0 of word 0. A bit is 1 if the device may have written the page since the last call.
    ///
    /// # Errors
    /// `ERR_UNALIGNED`, `ERR_INVALID_ARGUMENT` if the page size is not a power of two, `ERR_OUT_OF_RANGE` for more
    /// than 2^31 - 1 pages; `ERR_UNSUPPORTED`, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn read_dma_log(&self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        let mut bitmap = vec![0; words_of(range, page_size)?];
        let open = read(&self.inner.open);
        let fd = self.inner.expect_open(open.as_ref())?.fd.as_fd();
        ioctl::report_dma_log(fd, range, page_size, &mut bitmap).map_err(|errno| {
            self.log_error(errno, &format!("reading its log of DMA writes to {range}"))
        })?;
        Ok(bitmap)
    }

    fn log_error(&self, errno: Errno, operation: &str) -> Error {
        let code = match errno {
            Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::E2BIG => ErrorCode::Unsupported,
            _ => ErrorCode::System,
        };
        let operation = format!("device {}: {operation}", self.inner.name);
        Error::os(code, errno, FEATURE, operation)
    }
}
