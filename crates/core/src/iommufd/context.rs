//! An open `/dev/iommu`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ioctl;
use crate::device_file;
use crate::{Descriptor, ErrorCode, Result};

/// An open `/dev/iommu`, which owns address spaces and devices. Clones, address spaces and devices keep it open.
#[derive(Debug, Clone)]
pub struct Iommufd {
    inner: Arc<Context>,
}

#[derive(Debug)]
struct Context {
    fd: OwnedFd,
    maps_files: bool,
}

impl Iommufd {
    /// Opens `/dev/iommu`, available since Linux 6.2, and for vfio-pci since 6.6.
    ///
    /// # Errors
    /// `ERR_IOMMUFD_UNAVAILABLE` with the errno (`ENOENT`: the kernel lacks iommufd, or has not loaded it; `EACCES`).
    pub fn open() -> Result<Self> {
        let fd = device_file::open(
            "/dev/iommu",
            ErrorCode::IommufdUnavailable,
            "opening iommufd",
        )?;
        Ok(Self::new(fd))
    }

    /// Takes the descriptor of an iommufd that another process has opened. It may have address spaces and devices of
    /// others, which are not used.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not an iommufd.
    pub fn from_descriptor(descriptor: Descriptor) -> Result<Self> {
        if !ioctl::is_iommufd(descriptor.as_fd()) {
            return Err(descriptor.is_not("an open /dev/iommu"));
        }
        Ok(Self::new(descriptor.into()))
    }

    fn new(fd: OwnedFd) -> Self {
        let maps_files = ioctl::supports_map_file(fd.as_fd());
        Self {
            inner: Arc::new(Context { fd, maps_files }),
        }
    }

    /// Creates an iommufd without a kernel.
    #[cfg(test)]
    pub(super) fn fake() -> Self {
        let fd = crate::fake_kernel::descriptor();
        Self {
            inner: Arc::new(Context {
                fd,
                maps_files: true,
            }),
        }
    }

    /// Whether the kernel maps files (`IOMMU_IOAS_MAP_FILE`, since Linux 6.13). Checked once, at open.
    #[must_use]
    pub fn maps_files(&self) -> bool {
        self.inner.maps_files
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    /// Whether both are the same open file, not only the same device.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}
