//! The file by which other parts of the kernel identify an open device.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::device::Device;
use crate::{Error, ErrorCode, Result};

/// The file of a device: of its group with type1, its own with iommufd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelFile {
    Group(u32),
    Device(String),
}

impl fmt::Display for KernelFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(id) => write!(formatter, "VFIO group {id}"),
            Self::Device(name) => write!(formatter, "device {name}"),
        }
    }
}

impl Device {
    /// The name by which it was opened.
    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the file with a descriptor of its own. The descriptor keeps the device in use.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub(crate) fn kernel_file(&self) -> Result<(KernelFile, OwnedFd)> {
        let name = &self.inner.name;
        let copy = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                let operation = format!("copying the descriptor of device {name}");
                Error::os(
                    ErrorCode::System,
                    errno,
                    "fcntl(F_DUPFD_CLOEXEC)",
                    operation,
                )
            })
        };
        self.inner.with_open(|open| match open.group() {
            Some(group) => {
                let fd = group.with_descriptor(copy)?;
                Ok((KernelFile::Group(group.id()), fd))
            }
            None => Ok((KernelFile::Device(name.clone()), copy(open.fd.as_fd())?)),
        })
    }
}
