//! A VFIO container: one IOMMU address space, shared by the groups attached to it.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::abi::{VFIO_API_VERSION, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL};
use super::container_state::State;
use super::info::ContainerInfo;
use super::ioctl;
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::memory::Leases;
use crate::{Error, ErrorCode, Result};

#[derive(Debug)]
pub(super) struct ContainerInner {
    pub(super) state: Mutex<State>,
    pub(super) unmap_all: bool,
    /// How many mappings there are; to be asked without waiting for a mapping in progress.
    count: AtomicUsize,
}

/// An open container. Clones share it; groups attached to it keep it open. After the last clone the dropper's thread
/// unmaps everything, as nobody else could any more: a BAR among them would otherwise keep its device
/// open, that its group, and that the container, for ever.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) inner: Arc<ContainerInner>,
    _handle: Arc<Handle>,
}

/// What all clones of a container share, and groups attached to it don't.
#[derive(Debug)]
struct Handle {
    inner: Arc<ContainerInner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.inner.count.load(Ordering::Relaxed) > 0 {
            dropper::drop_later(Unreachable(Arc::clone(&self.inner)));
        }
    }
}

/// A container with mappings and without a handle.
struct Unreachable(Arc<ContainerInner>);

impl Drop for Unreachable {
    fn drop(&mut self) {
        // What the kernel refuses to unmap stays on record, and keeps its memory.
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
    /// Opens `/dev/vfio/vfio` and checks that it speaks API version 0 and type1v2.
    ///
    /// # Errors
    /// `ERR_VFIO_UNAVAILABLE` (`ENOENT`: the vfio module isn't loaded; `EACCES`),
    /// `ERR_VFIO_UNSUPPORTED`.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/vfio/vfio")
            .map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                Error::os(
                    ErrorCode::VfioUnavailable,
                    errno,
                    "open(/dev/vfio/vfio)",
                    "opening a VFIO container",
                )
            })?;
        let fd = OwnedFd::from(file);
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
            let message = "the kernel's VFIO has no type1v2 IOMMU (is vfio_iommu_type1 loaded, and an IOMMU enabled?)";
            return Err(Error::new(ErrorCode::VfioUnsupported, message));
        }
        let unmap_all = extension(VFIO_UNMAP_ALL)?;
        Ok(Self::with_descriptor(fd, unmap_all))
    }

    /// An empty container behind a descriptor. `unmap_all`: the kernel has `VFIO_DMA_UNMAP_FLAG_ALL`.
    pub(super) fn with_descriptor(fd: OwnedFd, unmap_all: bool) -> Self {
        let state = State {
            fd: Some(fd),
            iommu_set: false,
            groups: 0,
            mappings: Mappings::default(),
            stranded: false,
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

    /// Gives the container its type1v2 IOMMU, once after its first group was attached (and again
    /// after it has lost its last one).
    ///
    /// # Errors
    /// `ERR_CONTAINER_EMPTY` without a group, `ERR_SET_IOMMU_FAILED` (`EPERM`: no interrupt
    /// remapping, and `allow_unsafe_interrupts` is off; `EINVAL`: set already), `ERR_CLOSED`.
    pub fn set_iommu(&self) -> Result<()> {
        let mut state = lock(&self.inner.state);
        let fd = state.open()?;
        if state.groups == 0 {
            let message = "a container without a group can't have an IOMMU: attach a group first";
            return Err(Error::new(ErrorCode::ContainerEmpty, message));
        }
        ioctl::set_iommu(fd, i32::try_from(VFIO_TYPE1v2_IOMMU).unwrap_or(0)).map_err(|errno| {
            let what = match errno {
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
                what,
            )
        })?;
        state.iommu_set = true;
        Ok(())
    }

    /// What the IOMMU can do now: ask again after each group attached or detached.
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
                "asking what the IOMMU can do",
            )
        })?;
        drop(state);
        ContainerInfo::decode(&bytes)
    }

    /// How many mappings are on record. Doesn't wait for a call in progress.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Closes the container; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while groups are attached.
    pub fn close(&self) -> Result<()> {
        dropper::retry_settled(|| self.close_empty())
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
        let gone: Leases = state.mappings.take_all().collect();
        self.inner.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }
}

impl ContainerInner {
    /// Attaches a group.
    pub(super) fn attach(&self, group: BorrowedFd<'_>, id: u32) -> Result<()> {
        let mut state = lock(&self.state);
        ioctl::group_set_container(group, state.open()?).map_err(|errno| {
            let what = format!("attaching VFIO group {id} to a container");
            Error::os(
                ErrorCode::GroupAttach,
                errno,
                "ioctl(VFIO_GROUP_SET_CONTAINER)",
                what,
            )
        })?;
        state.groups = state.groups.saturating_add(1);
        Ok(())
    }

    /// Detaches a group. Asks the kernel rather than closing the descriptor: only then is it certain
    /// that the group is off, whoever else may hold a copy of it. With the last group the kernel
    /// destroys all mappings; the leases they kept are the caller's to drop, without its locks.
    ///
    /// Only type1's kernel side does that. Where `/dev/vfio/vfio` is iommufd's
    /// (`CONFIG_IOMMUFD_VFIO_CONTAINER`), mappings outlive the last group: no device reaches them, but
    /// one attached later would. So they are unmapped here, after the group is off, because before
    /// that a refused detachment would leave its devices without them. Type1 has no IOMMU left to ask
    /// by then, and says so. What stays mapped stays on record, until the container is closed.
    pub(super) fn detach(&self, group: BorrowedFd<'_>, id: u32) -> Result<Leases> {
        let mut state = lock(&self.state);
        match ioctl::group_unset_container(group) {
            // EINVAL: it is off already, since the host has taken its devices back from vfio-pci.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => {
                let code = if errno == Errno::EBUSY {
                    ErrorCode::DeviceInUse
                } else {
                    ErrorCode::System
                };
                let what = format!(
                    "detaching VFIO group {id} (EBUSY: one of its devices is still open somewhere)"
                );
                let syscall = "ioctl(VFIO_GROUP_UNSET_CONTAINER)";
                return Err(Error::os(code, errno, syscall, what));
            }
        }
        state.groups = state.groups.saturating_sub(1);
        let mut gone = Leases::default();
        if state.groups == 0 {
            state.iommu_set = false;
            if self.ask_unmap_leftovers(&state).is_ok() {
                gone.extend(state.mappings.take_all());
            }
            self.publish_count(&state);
        }
        Ok(gone)
    }

    /// Makes the kernel unmap everything after the last group was detached.
    pub(super) fn ask_unmap_leftovers(&self, state: &State) -> nix::Result<()> {
        // Kernels that can't unmap all at once have no iommufd either.
        if !self.unmap_all || state.mappings.len() == 0 {
            return Ok(());
        }
        let Ok(fd) = state.open() else {
            return Ok(());
        };
        match self.ask_unmap_all(fd) {
            // EINVAL is type1's answer; ENODEV iommufd's, where it never had any.
            Err(Errno::EINVAL | Errno::ENODEV | Errno::ENOTTY) => Ok(()),
            answer => answer,
        }
    }

    /// A group's descriptor goes without the kernel having confirmed the detachment: from now on its
    /// mappings count as alive for ever.
    pub(super) fn strand(&self) {
        lock(&self.state).stranded = true;
    }

    /// To be called before the lock goes, whenever the mappings have changed.
    pub(super) fn publish_count(&self, state: &State) {
        self.count.store(state.mappings.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn without_vfio_opening_names_the_file() {
        if let Err(error) = Container::open() {
            assert!(matches!(
                error.code(),
                ErrorCode::VfioUnavailable | ErrorCode::VfioUnsupported
            ));
            assert!(error.errno().is_none() || error.syscall().is_some());
        }
    }
}
