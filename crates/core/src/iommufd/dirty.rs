//! Which pages devices have written, where the IOMMU logs that.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::ioas::{Ioas, IoasInner, Open};
use super::ioctl;
use crate::bitmap::words_of;
use crate::locked::lock;
use crate::{Error, ErrorCode, Range, Result};

/// The page tables over an address space that can log, and whether they do.
#[derive(Debug, Default)]
pub(super) struct Logging {
    pub(super) tables: Vec<u32>,
    on: bool,
}

impl IoasInner {
    /// Attaches a device to a page table that logs, one that is there or a new one; `false` where that can't be.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` where that can't be while writes are logged: nobody would hear of this device's.
    pub(super) fn attach_logged(
        &self,
        open: &Open,
        device: u32,
        attach: &mut impl FnMut(u32) -> nix::Result<()>,
    ) -> Result<bool> {
        let mut logging = lock(&self.logging);
        let able = ioctl::logs_dirty_pages(open.fd(), device).unwrap_or(false);
        if able && (logging.attach_to_one(attach) || logging.attach_to_new(open, device, attach)) {
            return Ok(true);
        }
        if logging.on {
            let message = "writes are being logged, which the IOMMU of the device does not do";
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        Ok(false)
    }
}

impl Logging {
    fn attach_to_one(&self, attach: &mut impl FnMut(u32) -> nix::Result<()>) -> bool {
        self.tables.iter().any(|table| attach(*table).is_ok())
    }

    fn attach_to_new(
        &mut self,
        open: &Open,
        device: u32,
        attach: &mut impl FnMut(u32) -> nix::Result<()>,
    ) -> bool {
        let Ok(table) = ioctl::hwpt_alloc_dirty(open.fd(), device, open.id) else {
            return false;
        };
        // Before the device writes through it.
        let logs = !self.on || ioctl::set_dirty_tracking(open.fd(), table, true).is_ok();
        if logs && attach(table).is_ok() {
            self.tables.push(table);
            return true;
        }
        // Of no use; if it stays, the address space can't be destroyed before it, which then says so.
        if ioctl::destroy(open.fd(), table).is_err() {
            self.tables.push(table);
        }
        false
    }

    fn set(&self, fd: BorrowedFd<'_>, on: bool) -> nix::Result<()> {
        for (done, table) in self.tables.iter().enumerate() {
            if let Err(errno) = ioctl::set_dirty_tracking(fd, *table, on) {
                for earlier in self.tables.iter().take(done).filter(|_| on) {
                    // What goes on logging is no harm: nobody reads it.
                    let _ = ioctl::set_dirty_tracking(fd, *earlier, false);
                }
                return Err(errno);
            }
        }
        Ok(())
    }
}

impl Ioas {
    /// Starts or ends logging.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` where the IOMMU of an attached device can't, or none is attached; `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<()> {
        let open = self.inner.open()?;
        if on {
            self.require_logging()?;
        }
        let mut logging = lock(&self.inner.logging);
        logging.set(open.fd(), on).map_err(|errno| {
            failed(
                errno,
                "ioctl(IOMMU_HWPT_SET_DIRTY_TRACKING)",
                "logging which pages devices write".to_owned(),
            )
        })?;
        logging.on = on;
        Ok(())
    }

    /// A bit for each page of `range`, bit 0 of word 0 the first: whether a device has written it since it was asked last.
    /// Pages that are not mapped have none. Unmapping forgets what was not asked for before.
    ///
    /// # Errors
    /// `ERR_UNALIGNED`, `ERR_INVALID_ARGUMENT` for a page size that is not a power of two, `ERR_OUT_OF_RANGE` for more
    /// than 2^31 - 1 pages; `ERR_UNSUPPORTED`, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn dirty_pages(&self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        let length = words_of(range, page_size)?;
        let open = self.inner.open()?;
        self.require_logging()?;
        let mut words = vec![0; length];
        for table in &lock(&self.inner.logging).tables {
            ioctl::get_dirty_bitmap(open.fd(), *table, range, page_size, &mut words).map_err(
                |errno| {
                    failed(
                        errno,
                        "ioctl(IOMMU_HWPT_GET_DIRTY_BITMAP)",
                        format!("reading which pages of {range} were written"),
                    )
                },
            )?;
        }
        Ok(words)
    }

    fn require_logging(&self) -> Result<()> {
        let devices = self.inner.devices.load(Ordering::Acquire);
        let unlogged = self.inner.unlogged.load(Ordering::Acquire);
        if devices > 0 && unlogged == 0 {
            return Ok(());
        }
        let message = if devices == 0 {
            "no device is attached whose writes could be logged".to_owned()
        } else {
            format!("the IOMMU of {unlogged} device(s) does not log which pages they write")
        };
        Err(Error::new(ErrorCode::Unsupported, message))
    }
}

fn failed(errno: Errno, syscall: &'static str, what: String) -> Error {
    Error::os(ErrorCode::System, errno, syscall, what)
}
