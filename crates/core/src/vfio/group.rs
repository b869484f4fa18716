//! A VFIO group: devices that the IOMMU cannot isolate from each other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::abi::{VFIO_GROUP_FLAGS_CONTAINER_SET, VFIO_GROUP_FLAGS_VIABLE};
use super::container::{Container, ContainerInner};
use super::device::{Device, DeviceOwner};
use super::ioctl;
use super::token::DeviceName;
use crate::device_file;
use crate::dropper;
use crate::locked::{lock, owned};
use crate::{Descriptor, Error, ErrorCode, Result};

#[derive(Debug)]
struct OpenGroup {
    fd: OwnedFd,
    container: Option<Arc<ContainerInner>>,
    devices: usize,
}

#[derive(Debug)]
pub(super) struct GroupInner {
    id: u32,
    open: Mutex<Option<OpenGroup>>,
}

/// An open group. Clones share it; its devices keep it open.
#[derive(Debug, Clone)]
pub struct Group {
    inner: Arc<GroupInner>,
}

impl Group {
    /// Opens `/dev/vfio/<id>`.
    ///
    /// # Errors
    /// `ERR_GROUP_OPEN` with the errno (`ENOENT`: no device of the group is bound to vfio-pci; `EACCES`, `EPERM`;
    /// `EBUSY`: the group is open elsewhere).
    pub fn open(id: u32) -> Result<Self> {
        dropper::retry_after_flush(|| Self::open_once(id))
    }

    fn open_once(id: u32) -> Result<Self> {
        let operation = format!("opening VFIO group {id}");
        let path = format!("/dev/vfio/{id}");
        let fd = device_file::open(&path, ErrorCode::GroupOpen, operation)?;
        Ok(Self::new(id, fd))
    }

    /// Takes the descriptor of a group. Another process has opened it, and `id` is its number in messages.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not the file of a group; `ERR_DEVICE_IN_USE` if the group is attached to a
    /// container; `ERR_SYSTEM`.
    pub fn from_descriptor(descriptor: Descriptor, id: u32) -> Result<Self> {
        let flags = ioctl::group_get_status(descriptor.as_fd()).map_err(|errno| match errno {
            Errno::ENOTTY | Errno::EINVAL => descriptor.is_not("the file of a VFIO group"),
            _ => status_failed(id, errno),
        })?;
        if flags & VFIO_GROUP_FLAGS_CONTAINER_SET != 0 {
            let message = format!(
                "VFIO group {id} is attached to a container already, by a process that has its descriptor"
            );
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        Ok(Self::new(id, descriptor.into()))
    }

    fn new(id: u32, fd: OwnedFd) -> Self {
        let open = OpenGroup {
            fd,
            container: None,
            devices: 0,
        };
        Self {
            inner: Arc::new(GroupInner {
                id,
                open: Mutex::new(Some(open)),
            }),
        }
    }

    /// Creates a group without a kernel.
    #[cfg(test)]
    pub(super) fn fake(container: Option<&Container>) -> Self {
        let open = OpenGroup {
            fd: crate::fake_kernel::descriptor(),
            container: container.map(|container| Arc::clone(&container.inner)),
            devices: 0,
        };
        Self {
            inner: Arc::new(GroupInner {
                id: 0,
                open: Mutex::new(Some(open)),
            }),
        }
    }

    /// Creates a use of the group by a device.
    #[cfg(test)]
    pub(super) fn fake_use(&self) -> GroupUse {
        if let Some(open) = lock(&self.inner.open).as_mut() {
            open.devices = open.devices.saturating_add(1);
        }
        GroupUse {
            group: Arc::clone(&self.inner),
        }
    }

    /// Whether all devices of the group are bound to VFIO drivers or to none. Using the group requires it.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn viable(&self) -> Result<bool> {
        self.inner.with(|open| {
            let flags = ioctl::group_get_status(open.fd.as_fd())
                .map_err(|errno| status_failed(self.inner.id, errno))?;
            Ok(flags & VFIO_GROUP_FLAGS_VIABLE != 0)
        })
    }

    /// Attaches the group to a container. If the container has an IOMMU, its mappings apply to the group's devices
    /// from now on.
    ///
    /// # Errors
    /// `ERR_GROUP_ATTACH` with the errno (`EINVAL`: attached already, or an existing mapping is outside of the IOVA
    /// ranges of the group's devices; `EPERM`: not viable), `ERR_CLOSED`.
    pub fn attach(&self, container: &Container) -> Result<()> {
        self.inner.with(|open| {
            container.inner.attach(open.fd.as_fd(), self.inner.id)?;
            open.container = Some(Arc::clone(&container.inner));
            Ok(())
        })
    }

    /// Opens a device of the group by its PCI address, `0000:01:00.0`. The name includes the VF token if the device
    /// requires one: `0000:04:10.0 vf_token=UUID`. The group must be attached to a container with an IOMMU.
    ///
    /// # Errors
    /// `ERR_DEVICE_OPEN` with the errno: `ENODEV` (the group does not have the device), `EACCES` (the token is missing
    /// or wrong) or `EINVAL`. `EINVAL` means no container, one without an IOMMU, or a token that the device does not
    /// accept. `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_VFIO_UNSUPPORTED` if this is not a PCI device.
    pub fn open_device(&self, name: &str) -> Result<Device> {
        let parsed = DeviceName::parse(name)?;
        let (bdf, name) = (parsed.address, parsed.for_group()?);
        let (fd, use_of_group) = self.inner.with(|open| {
            let fd = ioctl::group_get_device_fd(open.fd.as_fd(), &name).map_err(|errno| {
                let operation = format!("opening device {bdf} of VFIO group {}", self.inner.id);
                Error::os(
                    ErrorCode::DeviceOpen,
                    errno,
                    "ioctl(VFIO_GROUP_GET_DEVICE_FD)",
                    operation,
                )
            })?;
            open.devices = open.devices.saturating_add(1);
            Ok((
                fd,
                GroupUse {
                    group: Arc::clone(&self.inner),
                },
            ))
        })?;
        Device::new(bdf, fd, DeviceOwner::Group(use_of_group))
    }

    /// Detaches the group from its container and closes it; a second call does nothing. Detaching the container's
    /// last group removes all IOMMU mappings.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while a device of the group is open, here or (`EBUSY`) elsewhere.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.close_unused())
    }

    fn close_unused(&self) -> Result<()> {
        let mut guard = lock(&self.inner.open);
        let Some(open) = guard.as_mut() else {
            return Ok(());
        };
        if open.devices > 0 {
            let message = format!(
                "VFIO group {} has {} device(s) open",
                self.inner.id, open.devices
            );
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        let mut leases = None;
        if let Some(container) = &open.container {
            leases = Some(container.detach(open.fd.as_fd(), self.inner.id)?);
        }
        let removed = guard.take();
        drop(guard);
        // Either may be the last owner of other objects, whose drop may take locks.
        drop((removed, leases));
        Ok(())
    }
}

fn status_failed(id: u32, errno: Errno) -> Error {
    let operation = format!("reading the status of VFIO group {id}");
    let syscall = "ioctl(VFIO_GROUP_GET_STATUS)";
    Error::os(ErrorCode::System, errno, syscall, operation)
}

impl GroupInner {
    fn with<T>(&self, f: impl FnOnce(&mut OpenGroup) -> Result<T>) -> Result<T> {
        let mut open = lock(&self.open);
        match open.as_mut() {
            Some(open) => f(open),
            None => Err(closed(self.id)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl GroupInner {
    /// The number of the group.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// Calls `f` with the descriptor, which stays open during the call.
    pub(super) fn with_descriptor<T>(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<T> {
        self.with(|open| f(open.fd.as_fd()))
    }
}

impl GroupInner {
    /// Calls `f` with the descriptors of groups, each once, which stay open during the call.
    pub(super) fn with_descriptors<T>(
        mut groups: Vec<&Arc<Self>>,
        f: impl FnOnce(&[BorrowedFd<'_>]) -> T,
    ) -> Result<T> {
        // Groups are locked in ascending order everywhere, so no deadlock is possible. The kernel opens a group only
        // once, so equal numbers mean the same group.
        groups.sort_by_key(|group| group.id);
        groups.dedup_by_key(|group| group.id);
        let guards: Vec<_> = groups
            .iter()
            .map(|group| (group.id, lock(&group.open)))
            .collect();
        let mut descriptors = Vec::with_capacity(guards.len());
        for (id, guard) in &guards {
            descriptors.push(guard.as_ref().ok_or_else(|| closed(*id))?.fd.as_fd());
        }
        Ok(f(&descriptors))
    }
}

fn closed(id: u32) -> Error {
    Error::new(ErrorCode::Closed, format!("VFIO group {id} is closed"))
}

impl Drop for GroupInner {
    fn drop(&mut self) {
        if let Some(OpenGroup { fd, container, .. }) = owned(&mut self.open).take() {
            let id = self.id;
            dropper::drop_later(UnclosedGroup { id, fd, container });
        }
    }
}

/// A group without open devices that was dropped instead of closed.
struct UnclosedGroup {
    id: u32,
    fd: OwnedFd,
    container: Option<Arc<ContainerInner>>,
}

impl Drop for UnclosedGroup {
    fn drop(&mut self) {
        if let Some(container) = &self.container
            && container.detach(self.fd.as_fd(), self.id).is_err()
        {
            container.mark_unconfirmed_detach();
        }
    }
}

/// A device's use of its group, which keeps the group open.
#[derive(Debug)]
pub(super) struct GroupUse {
    group: Arc<GroupInner>,
}

impl GroupUse {
    pub(super) const fn group(&self) -> &Arc<GroupInner> {
        &self.group
    }
}

impl Drop for GroupUse {
    fn drop(&mut self) {
        if let Some(open) = lock(&self.group.open).as_mut() {
            open.devices = open.devices.saturating_sub(1);
        }
    }
}
