//! A VFIO container: one IOMMU address space for the groups attached to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::abi::{VFIO_API_VERSION, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL};
use super::container_state::State;
use super::info::ContainerInfo;
use super::ioctl;
use crate::device_file::open_device_file;
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::memory::Leases;
use crate::{Error, ErrorCode, Result};

#[derive(Debug)]
pub(super) struct ContainerInner {
    pub(super) state: Mutex<State>,
    pub(super) unmap_all: bool,
    /// The number of mappings, readable without waiting for a call in progress.
    count: AtomicUsize,
}

/// An open container. Clones share it; attached groups keep it open. After the last clone the dropper's thread unmaps
/// everything: otherwise a mapped BAR would keep its device open, the device its group, and the group the container,
/// for ever.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) inner: Arc<ContainerInner>,
    _handle: Arc<Handle>,
}

/// The state that only the clones of a container share, not the attached groups.
#[derive(Debug)]
struct Handle {
    inner: Arc<ContainerInner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.inner.count.load(Ordering::Relaxed) > 0 {
            dropper::drop_later(WithoutHandle(Arc::clone(&self.inner)));
        }
    }
}

/// A container with mappings and without a handle.
struct WithoutHandle(Arc<ContainerInner>);

impl Drop for WithoutHandle {
    fn drop(&mut self) {
        // Mappings that the kernel fails to unmap stay on record, and keep their memory.
        let _ = self.0.unmap_all();
    }
}

impl Drop for ContainerInner {
    fn drop(&mut self) {
        let state = owned(&mut self.state);
        if state.fd.is_some() {
            dropper::drop_later(std::mem::take(state));
        }
    }
}

impl Container {
    /// Opens `/dev/vfio/vfio` and checks that it supports API version 0 and type1v2.
    ///
    /// # Errors
    /// `ERR_VFIO_UNAVAILABLE` (`ENOENT`: the vfio module is not loaded; `EACCES`), `ERR_VFIO_UNSUPPORTED`.
    pub fn open() -> Result<Self> {
        let operation = "opening a VFIO container";
        let fd = open_device_file("/dev/vfio/vfio", ErrorCode::VfioUnavailable, operation)?;
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

    /// Creates an empty container from a descriptor. `unmap_all`: the kernel supports `VFIO_DMA_UNMAP_FLAG_ALL`.
    pub(super) fn with_descriptor(fd: OwnedFd, unmap_all: bool) -> Self {
        let state = State {
            fd: Some(fd),
            iommu_set: false,
            groups: 0,
            mappings: Mappings::default(),
            detach_unconfirmed: false,
        };
        let inner = Arc::new(ContainerInner {
            state: Mutex::new(state),
            unmap_all,
            count: AtomicUsize::new(0),
        });
        Self {
            _handle: Arc::new(Handle {
                inner: Arc::clone(&inner),
            }),
            inner,
        }
    }

    /// Sets the container's IOMMU type to type1v2, once after its first group was attached (and again after its last
    /// group was detached).
    ///
    /// # Errors
    /// `ERR_CONTAINER_EMPTY` without a group, `ERR_SET_IOMMU_FAILED` (`EPERM`: no interrupt remapping, and
    /// `allow_unsafe_interrupts` is off; `EINVAL`: set already), `ERR_CLOSED`.
    pub fn set_iommu(&self) -> Result<()> {
        let mut state = lock(&self.inner.state);
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
        let state = lock(&self.inner.state);
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
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Closes the container; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while groups are attached.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.close_empty())
    }

    fn close_empty(&self) -> Result<()> {
        let mut state = lock(&self.inner.state);
        if state.groups > 0 {
            let message = format!("the container has {} group(s) attached", state.groups);
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        let fd = state.fd.take();
        state.iommu_set = false;
        drop(fd);
        let removed: Leases = state.mappings.take_all().collect();
        self.inner.publish_count(&state);
        drop(state);
        drop(removed);
        Ok(())
    }
}

impl ContainerInner {
    /// Attaches a group.
    pub(super) fn attach(&self, group: BorrowedFd<'_>, id: u32) -> Result<()> {
        let mut state = lock(&self.state);
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
    /// Only type1 does that. With a `/dev/vfio/vfio` of iommufd (`CONFIG_IOMMUFD_VFIO_CONTAINER`), mappings outlive
    /// the last group: no device reaches them, but one attached later would. So they are unmapped here, after the
    /// group is detached, because before that a failed detachment would leave its devices without them. Type1 no
    /// longer has an IOMMU then, and returns an error that says so. Mappings that remain stay on record until the
    /// container is closed.
    pub(super) fn detach(&self, group: BorrowedFd<'_>, id: u32) -> Result<Leases> {
        let mut state = lock(&self.state);
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
        let mut removed = Leases::default();
        if state.groups == 0 {
            state.iommu_set = false;
            if self.unmap_leftovers_in_kernel(&state).is_ok() {
                removed.extend(state.mappings.take_all());
            }
            self.publish_count(&state);
        }
        Ok(removed)
    }

    /// Makes the kernel unmap everything after the last group was detached.
    pub(super) fn unmap_leftovers_in_kernel(&self, state: &State) -> nix::Result<()> {
        // Kernels that cannot unmap all at once do not have iommufd.
        if !self.unmap_all || state.mappings.len() == 0 {
            return Ok(());
        }
        let Ok(fd) = state.open() else {
            return Ok(());
        };
        match self.unmap_all_in_kernel(fd) {
            // type1 returns EINVAL; iommufd returns ENODEV if it never had a device.
            Err(Errno::EINVAL | Errno::ENODEV | Errno::ENOTTY) => Ok(()),
            answer => answer,
        }
    }

    /// Records that a group's descriptor was closed without a confirmed detachment: from now on, mappings count as
    /// alive for ever.
    pub(super) fn mark_unconfirmed_detach(&self) {
        lock(&self.state).detach_unconfirmed = true;
    }

    /// Updates the count of mappings; call it before the lock is released, after each change.
    pub(super) fn publish_count(&self, state: &State) {
        self.count.store(state.mappings.len(), Ordering::Relaxed);
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
