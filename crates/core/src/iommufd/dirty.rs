//! Dirty-page logging of an address space, if the IOMMU supports it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::ioas::{Ioas, IoasInner, OpenIoas};
use super::ioctl;
use crate::bitmap::words_of;
use crate::locked::lock;
use crate::{Error, ErrorCode, Range, Result};

const HW_INFO: &str = "ioctl(IOMMU_GET_HW_INFO)";
const ALLOC: &str = "ioctl(IOMMU_HWPT_ALLOC)";
const ATTACH: &str = "ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT)";

/// The page tables of an address space that support logging, and whether logging is on.
#[derive(Debug, Default)]
pub(super) struct Logging {
    pub(super) tables: Vec<u32>,
    on: bool,
}

impl IoasInner {
    /// Attaches a device to an existing or new page table with logging. Returns `false` if the IOMMU does not support
    /// it.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if logging is on and the device's IOMMU does not support it: its writes would go unrecorded.
    /// `ERR_DEVICE_ATTACH` if the kernel has no memory. Otherwise the device would be attached without logging.
    pub(super) fn attach_logged(
        &self,
        open: &OpenIoas,
        device: u32,
        attach: &mut impl FnMut(u32) -> nix::Result<()>,
    ) -> Result<bool> {
        let mut logging = lock(&self.unguarded.logging);
        let able = unless_no_memory(HW_INFO, ioctl::logs_dirty_pages(open.fd(), device))?;
        let able = able.unwrap_or(false);
        if able
            && (logging.attach_to_one(attach)? || logging.attach_to_new(open, device, attach)?)
        {
            return Ok(true);
        }
        if logging.on {
            let message =
                "dirty-page logging is on, which the IOMMU of the device does not support";
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        Ok(false)
    }

    /// Destroys the page tables without devices. They would restrict the address space to what their IOMMU translates.
    pub(super) fn destroy_unused_tables(&self, open: &OpenIoas) {
        lock(&self.unguarded.logging).destroy_unused(open.fd());
    }
}

impl Logging {
    /// Destroys the tables that no device uses. While logging is on, they keep what their devices have written.
    fn destroy_unused(&mut self, fd: BorrowedFd<'_>) {
        if !self.on {
            // EBUSY: a device uses it. A table that remains is destroyed with the address space.
            self.tables
                .retain(|table| ioctl::destroy(fd, *table).is_err());
        }
    }

    fn attach_to_one(&self, attach: &mut impl FnMut(u32) -> nix::Result<()>) -> Result<bool> {
        for table in &self.tables {
            if unless_no_memory(ATTACH, attach(*table))?.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn attach_to_new(
        &mut self,
        open: &OpenIoas,
        device: u32,
        attach: &mut impl FnMut(u32) -> nix::Result<()>,
    ) -> Result<bool> {
        let allocated = ioctl::hwpt_alloc_dirty(open.fd(), device, open.id);
        let Ok(table) = unless_no_memory(ALLOC, allocated)? else {
            return Ok(false);
        };
        // The log must be on before the device writes through the table.
        let logged = if self.on {
            ioctl::set_dirty_tracking(open.fd(), table, true)
        } else {
            Ok(())
        };
        let attached = logged.and_then(|()| attach(table));
        if attached.is_ok() {
            self.tables.push(table);
            return Ok(true);
        }
        // The table is unused. If it remains, destroying the address space fails until the table is destroyed.
        if ioctl::destroy(open.fd(), table).is_err() {
            self.tables.push(table);
        }
        unless_no_memory(ATTACH, attached).map(|_| false)
    }

    fn set(&self, fd: BorrowedFd<'_>, on: bool) -> nix::Result<()> {
        for (done, table) in self.tables.iter().enumerate() {
            if let Err(errno) = ioctl::set_dirty_tracking(fd, *table, on) {
                for earlier in self.tables.iter().take(done).filter(|_| on) {
                    // A table that continues to log does no harm: nobody reads the log.
                    let _ = ioctl::set_dirty_tracking(fd, *earlier, false);
                }
                return Err(errno);
            }
        }
        Ok(())
    }
}

impl Ioas {
    /// Turns logging on or off.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if the IOMMU of an attached device does not support it, or no device is attached;
    /// `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<()> {
        let open = self.inner.open()?;
        if on {
            self.require_logging()?;
        }
        let mut logging = lock(&self.inner.unguarded.logging);
        logging.set(open.fd(), on).map_err(|errno| {
            failed(
                errno,
                "ioctl(IOMMU_HWPT_SET_DIRTY_TRACKING)",
                "switching dirty-page logging".to_owned(),
            )
        })?;
        logging.on = on;
        logging.destroy_unused(open.fd());
        Ok(())
    }

    /// Returns one bit for each page of `range`, starting at bit 0 of word 0. A bit is 1 if a device has written the
    /// page since the last call. The bits of unmapped pages are 0. Unmapping a page discards its bit.
    ///
    /// # Errors
    /// `ERR_UNALIGNED`, `ERR_INVALID_ARGUMENT` if the page size is not a power of two, `ERR_OUT_OF_RANGE` for more
    /// than 2^31 - 1 pages; `ERR_UNSUPPORTED`, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn dirty_pages(&self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        let length = words_of(range, page_size)?;
        let open = self.inner.open()?;
        self.require_logging()?;
        let mut words = vec![0; length];
        for table in &lock(&self.inner.unguarded.logging).tables {
            ioctl::get_dirty_bitmap(open.fd(), *table, range, page_size, &mut words).map_err(
                |errno| {
                    failed(
                        errno,
                        "ioctl(IOMMU_HWPT_GET_DIRTY_BITMAP)",
                        format!("reading the dirty pages of {range}"),
                    )
                },
            )?;
        }
        Ok(words)
    }

    fn require_logging(&self) -> Result<()> {
        let devices = self.inner.unguarded.count.load(Ordering::Acquire);
        let unlogged = self.inner.unguarded.unlogged.load(Ordering::Acquire);
        if devices > 0 && unlogged == 0 {
            return Ok(());
        }
        let message = if devices == 0 {
            "dirty-page logging requires an attached device".to_owned()
        } else {
            format!(
                "the IOMMU of {unlogged} attached device(s) does not support dirty-page logging"
            )
        };
        Err(Error::new(ErrorCode::Unsupported, message))
    }
}

/// Returns the result of a step of an attach, unless it failed because the kernel has no memory.
fn unless_no_memory<T>(syscall: &'static str, result: nix::Result<T>) -> Result<nix::Result<T>> {
    if let Err(errno @ Errno::ENOMEM) = result {
        let operation = "attaching a device with dirty-page logging";
        return Err(Error::os(
            ErrorCode::DeviceAttach,
            errno,
            syscall,
            operation,
        ));
    }
    Ok(result)
}

fn failed(errno: Errno, syscall: &'static str, operation: String) -> Error {
    Error::os(ErrorCode::System, errno, syscall, operation)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Returns the result of an attach to two tables with these results, and the number of attempts.
    fn attach_with(results: &[nix::Result<()>]) -> (Result<bool>, usize) {
        let logging = Logging {
            tables: vec![1, 2],
            on: false,
        };
        let mut rest = results.iter();
        let attached = logging.attach_to_one(&mut |_| *rest.next().unwrap());
        (attached, results.len() - rest.len())
    }

    #[test]
    fn a_device_is_attached_to_the_first_table_that_accepts_it() {
        let (attached, attempts) = attach_with(&[Err(Errno::EINVAL), Ok(())]);
        assert_eq!((attached.unwrap(), attempts), (true, 2));
        let (attached, attempts) = attach_with(&[Err(Errno::EINVAL); 2]);
        assert_eq!((attached.unwrap(), attempts), (false, 2));
    }

    #[test]
    fn an_attach_without_memory_in_the_kernel_tries_no_other_table() {
        let (attached, attempts) = attach_with(&[Err(Errno::ENOMEM), Ok(())]);
        let error = attached.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DeviceAttach);
        assert_eq!(error.errno(), Some(Errno::ENOMEM));
        assert_eq!(attempts, 1);
    }
}
