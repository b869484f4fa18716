//! Attaching devices to an address space.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Iommufd;
use super::ioas::{Ioas, IoasInner, IoasState, OpenIoas};
use crate::{Error, ErrorCode, Result};

/// A device's hold on its address space, which is not destroyed meanwhile. It begins before the device is attached.
#[derive(Debug)]
pub(crate) struct Attachment {
    ioas: Arc<IoasInner>,
    open: OpenIoas,
    logged: bool,
}

impl Attachment {
    /// Counts a device while the lock keeps the address space alive. At first it counts as one without dirty-page
    /// logging.
    fn begin(ioas: &Arc<IoasInner>, state: &IoasState) -> Result<Self> {
        let open = state.open()?;
        ioas.unguarded.count.fetch_add(1, Ordering::AcqRel);
        ioas.unguarded.unlogged.fetch_add(1, Ordering::AcqRel);
        Ok(Self {
            ioas: Arc::clone(ioas),
            open,
            logged: false,
        })
    }

    fn mark_logged(&mut self) {
        self.logged = true;
        self.ioas.unguarded.unlogged.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Attachment {
    /// Dropped after the kernel has detached the device.
    fn drop(&mut self) {
        if self.logged {
            self.ioas.destroy_unused_tables(&self.open);
        }
        self.ioas.unguarded.count.fetch_sub(1, Ordering::AcqRel);
        if !self.logged {
            self.ioas.unguarded.unlogged.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Ioas {
    /// Attaches a device that is bound to the same iommufd. The argument of `attach` is the id of a page table or
    /// address space. Uses a page table with dirty-page logging if the IOMMU supports it.
    ///
    /// The device is counted before the kernel attaches it: otherwise the address space could be destroyed in between,
    /// another one could receive its id, and the device would be attached to that one.
    pub(crate) fn attach(
        &self,
        iommufd: &Iommufd,
        device: u32,
        mut attach: impl FnMut(u32) -> nix::Result<()>,
    ) -> Result<Attachment> {
        let mut attachment = Attachment::begin(&self.inner, &self.inner.lock())?;
        let open = attachment.open.clone();
        if !open.iommufd.is(iommufd) {
            let message = "the device and the address space belong to different iommufds";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        if self.inner.attach_logged(&open, device, &mut attach)? {
            attachment.mark_logged();
            return Ok(attachment);
        }
        attach(open.id).map_err(|errno| {
            Error::os(
                ErrorCode::DeviceAttach,
                errno,
                "ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT)",
                "attaching a device to an address space",
            )
        })?;
        Ok(attachment)
    }
}
