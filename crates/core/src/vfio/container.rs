//! A VFIO container: one IOMMU address space for the groups attached to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::abi::{VFIO_API_VERSION, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL};
use super::container_state::ContainerState;
use super::info::ContainerInfo;
use super::ioctl;
use crate::device_file;
use crate::dropper;
use crate::mappings::Mappings;
use crate::memory::Leases;
use crate::space::{Handle, Space};
use crate::{Descriptor, Error, ErrorCode, Result};

/// A container, for its handles and attached groups.
pub(super) type ContainerInner = Space<ContainerState>;

/// An open container. Clones share it; attached groups keep it open. After the last clone the dropper's thread unmaps
/// everything: otherwise a mapped BAR would keep its device open, the device its group, and the group the container,
/// for ever.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) inner: Arc<ContainerInner>,
    _handle: Arc<Handle<ContainerState>>,
}

impl Container {
    /// Opens `/dev/vfio/vfio` and checks that it supports API version 0 and type1v2.
    ///
    /// # Errors
    /// `ERR_VFIO_UNAVAILABLE` (`ENOENT`: the vfio module is not loaded; `EACCES`), `ERR_VFIO_UNSUPPORTED`.
    pub fn open() -> Result<Self> {
        let path = "/dev/vfio/vfio";
        let fd = device_file::open(path, ErrorCode::VfioUnavailable, "opening a VFIO container")?;
        Self::check(fd)
    }

    /// Takes the descriptor of a container, and checks it as [`open`](Self::open). Another process has opened it.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not the file of a container; `ERR_DEVICE_IN_USE` if it has an IOMMU, which
    /// another process may use; `ERR_VFIO_UNSUPPORTED`.
    pub fn from_descriptor(descriptor: Descriptor) -> Result<Self> {
        if ioctl::get_api_version(descriptor.as_fd()) == Err(Errno::ENOTTY) {
            return Err(descriptor.is_not("the file of a VFIO container"));
        }
        // The IOMMU can be set only once, and its type cannot be read.
        if ioctl::iommu_get_info(descriptor.as_fd()).is_ok() {
            let message =
                "the container has an IOMMU already, set by a process that has its descriptor";
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        Self::check(descriptor.into())
    }

    fn check(fd: OwnedFd) -> Result<Self> {
        let unsupported =
            |errno, syscall| Error::os(ErrorCode::VfioUnsupported, errno, syscall, "checking VFIO");
        let version = ioctl::get_api_version(fd.as_fd())
            .map_err(|errno| unsupported(errno, "ioctl(VFIO_GET_API_VERSION)"))?;
        if u32::try_from(version) != Ok(VFIO_API_VERSION) {
            let message =
                format!("the kernel's VFIO has API version {version}, expected {VFIO_API_VERSION}");
            return Err(Error::new(ErrorCode::VfioUnsupported, message));
        }
        let extension = |number| {
            ioctl::check_extension(fd.as_fd(), i32::try_from(number).unwrap_or(0))
                .map_err(|errno| unsupported(errno, "ioctl(VFIO_CHECK_EXTENSION)"))
        };
        if !extension(VFIO_TYPE1v2_IOMMU)? {
            let message = "the kernel's VFIO does not support type1v2. Load vfio_iommu_type1 and enable an IOMMU";
            return Err(Error::new(ErrorCode::VfioUnsupported, message));
        }
        let unmap_all = extension(VFIO_UNMAP_ALL)?;
        Ok(Self::with_descriptor(fd, unmap_all))
    }

    /// Creates an empty container from a descriptor. If `unmap_all` is set, the kernel supports
    /// `VFIO_DMA_UNMAP_FLAG_ALL`.
    pub(super) fn with_descriptor(fd: OwnedFd, unmap_all: bool) -> Self {
        let state = ContainerState {
            fd: Some(fd),
            unmap_all,
            iommu_set: false,
            groups: 0,
            mappings: Mappings::default(),
            detach_unconfirmed: false,
        };
        let inner = Space::new(state, ());
        Self {
            _handle: Handle::new(&inner),
            inner,
        }
    }

    /// Sets the container's IOMMU type to type1v2, once after its first group was attached. Detaching its last group
    /// removes the IOMMU: set it again after the next group is attached.
    ///
    /// # Errors
    /// `ERR_CONTAINER_EMPTY` without a group, `ERR_SET_IOMMU_FAILED` (`EPERM`: no interrupt remapping, and
    /// `allow_unsafe_interrupts` is off; `EINVAL`: set already), `ERR_CLOSED`.
    pub fn set_iommu(&self) -> Result<()> {
        let mut state = self.inner.lock();
        let fd = state.open()?;
        if state.groups == 0 {
            let message = "the container has no group. Attach a group before setting the IOMMU";
            return Err(Error::new(ErrorCode::ContainerEmpty, message));
        }
        ioctl::set_iommu(fd, i32::try_from(VFIO_TYPE1v2_IOMMU).unwrap_or(0)).map_err(|errno| {
            let operation = match errno {
                Errno::EPERM => {
                    "setting a container's IOMMU (no interrupt remapping? then \
                     vfio_iommu_type1 needs allow_unsafe_interrupts=1)"
                }
                _ => "setting a container's IOMMU",
            };
            Error::os(
                ErrorCode::SetIommuFailed,
                errno,
                "ioctl(VFIO_SET_IOMMU)",
                operation,
            )
        })?;
        state.iommu_set = true;
        Ok(())
    }

    /// Returns the IOMMU's capabilities, which attaching or detaching a group changes.
    ///
    /// # Errors
    /// `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`, `ERR_BAD_KERNEL_DATA`, `ERR_SYSTEM`.
    pub fn info(&self) -> Result<ContainerInfo> {
        let state = self.inner.lock();
        let bytes = ioctl::iommu_get_info(state.ready()?).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "ioctl(VFIO_IOMMU_GET_INFO)",
                "reading the capabilities of the IOMMU",
            )
        })?;
        drop(state);
        ContainerInfo::decode(&bytes)
    }

    /// Returns the number of recorded mappings. Does not wait for a call in progress.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.inner.count()
    }

    /// Closes the container; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while groups are attached.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.close_empty())
    }

    fn close_empty(&self) -> Result<()> {
        self.inner.change(|state, removed| {
            if state.groups > 0 {
                let message = format!("the container has {} group(s) attached", state.groups);
                return Err(Error::new(ErrorCode::DeviceInUse, message));
            }
            drop(state.fd.take());
            state.iommu_set = false;
            removed.extend(state.mappings.take_all());
            Ok(())
        })
    }
}

impl ContainerInner {
    /// Attaches a group.
    pub(super) fn attach(&self, group: BorrowedFd<'_>, id: u32) -> Result<()> {
        let mut state = self.lock();
        ioctl::group_set_container(group, state.open()?).map_err(|errno| {
            let operation = format!("attaching VFIO group {id} to a container");
            Error::os(
                ErrorCode::GroupAttach,
                errno,
                "ioctl(VFIO_GROUP_SET_CONTAINER)",
                operation,
            )
        })?;
        state.groups = state.groups.saturating_add(1);
        Ok(())
    }

    /// Detaches a group. Calls the kernel instead of only closing the descriptor: others may hold a copy of it, so
    /// only the call confirms the detachment. With the last group the kernel destroys all mappings; the caller drops
    /// their leases after it has released its locks.
    ///
    /// Only type1 does that. With a `/dev/vfio/vfio` of iommufd (`CONFIG_IOMMUFD_VFIO_CONTAINER`), mappings outlive the
    /// last group: no device reaches them, but one attached later would. So they are unmapped here, after the group is
    /// detached, because before that a failed detachment would leave its devices without them. Type1 no longer has an
    /// IOMMU then, and rejects that call. Mappings that remain stay on record until the container is closed.
    pub(super) fn detach(&self, group: BorrowedFd<'_>, id: u32) -> Result<Leases> {
        self.change(|state, removed| {
            match ioctl::group_unset_container(group) {
                // EINVAL: the group is detached already, because the host has unbound its devices from vfio-pci.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => {
                    let code = if errno == Errno::EBUSY {
                        ErrorCode::DeviceInUse
                    } else {
                        ErrorCode::System
                    };
                    let operation = format!(
                        "detaching VFIO group {id} (EBUSY: one of its devices is still open somewhere)"
                    );
                    let syscall = "ioctl(VFIO_GROUP_UNSET_CONTAINER)";
                    return Err(Error::os(code, errno, syscall, operation));
                }
            }
            state.groups = state.groups.saturating_sub(1);
            if state.groups == 0 {
                state.iommu_set = false;
                if state.unmap_leftovers_in_kernel().is_ok() {
                    removed.extend(state.mappings.take_all());
                }
            }
            Ok(std::mem::take(removed))
        })
    }

    /// Records that a group's descriptor was closed without a confirmed detachment. From now on, mappings count as
    /// alive forever.
    pub(super) fn mark_unconfirmed_detach(&self) {
        self.lock().detach_unconfirmed = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_if_vfio_is_unavailable() {
        if let Err(error) = Container::open() {
            assert!(matches!(
                error.code(),
                ErrorCode::VfioUnavailable | ErrorCode::VfioUnsupported
            ));
            assert!(error.errno().is_none() || error.syscall().is_some());
        }
    }
}
