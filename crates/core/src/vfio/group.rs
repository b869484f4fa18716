//! A VFIO group: the devices that the IOMMU can't tell apart.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::abi::VFIO_GROUP_FLAGS_VIABLE;
use super::container::{Container, ContainerInner};
use super::device::{Device, Home};
use super::ioctl;
use super::token::DeviceName;
use crate::dropper;
use crate::locked::{lock, owned};
use crate::{Error, ErrorCode, Result};

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    container: Option<Arc<ContainerInner>>,
    devices: usize,
}

#[derive(Debug)]
pub(super) struct GroupInner {
    id: u32,
    open: Mutex<Option<Open>>,
}

/// An open group. Clones share it; devices of it keep it open.
#[derive(Debug, Clone)]
pub struct Group {
    inner: Arc<GroupInner>,
}

impl Group {
    /// Opens `/dev/vfio/<id>`.
    ///
    /// # Errors
    /// `ERR_GROUP_OPEN` with the errno (`ENOENT`: no device of the group is bound to vfio-pci;
    /// `EACCES`, `EPERM`; `EBUSY`: somebody has it open).
    pub fn open(id: u32) -> Result<Self> {
        dropper::retry_settled(|| Self::open_once(id))
    }

    fn open_once(id: u32) -> Result<Self> {
        let path = format!("/dev/vfio/{id}");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                Error::os(
                    ErrorCode::GroupOpen,
                    errno,
                    format!("open({path})"),
                    format!("opening VFIO group {id}"),
                )
            })?;
        let open = Open {
            fd: file.into(),
            container: None,
            devices: 0,
        };
        Ok(Self {
            inner: Arc::new(GroupInner {
                id,
                open: Mutex::new(Some(open)),
            }),
        })
    }

    /// A group without a kernel behind it.
    #[cfg(test)]
    pub(super) fn fake(container: Option<&Container>) -> Self {
        let open = Open {
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

    /// A use of it by a device.
    #[cfg(test)]
    pub(super) fn fake_use(&self) -> GroupUse {
        if let Some(open) = lock(&self.inner.open).as_mut() {
            open.devices = open.devices.saturating_add(1);
        }
        GroupUse {
            group: Arc::clone(&self.inner),
        }
    }

    /// Whether all devices of the group are in VFIO's hands (or nobody's), so that it can be used.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn viable(&self) -> Result<bool> {
        self.inner.with(|open| {
            let flags = ioctl::group_get_status(open.fd.as_fd()).map_err(|errno| {
                let what = format!("asking for the status of VFIO group {}", self.inner.id);
                Error::os(
                    ErrorCode::System,
                    errno,
                    "ioctl(VFIO_GROUP_GET_STATUS)",
                    what,
                )
            })?;
            Ok(flags & VFIO_GROUP_FLAGS_VIABLE != 0)
        })
    }

    /// Attaches the group to a container. With an IOMMU set, the container's mappings apply to the
    /// group's devices from here on.
    ///
    /// # Errors
    /// `ERR_GROUP_ATTACH` with the errno (`EINVAL`: attached already, or a live mapping lies where
    /// the group's devices can't have one; `EPERM`: not viable), `ERR_CLOSED`.
    pub fn attach(&self, container: &Container) -> Result<()> {
        self.inner.with(|open| {
            container.inner.attach(open.fd.as_fd(), self.inner.id)?;
            open.container = Some(Arc::clone(&container.inner));
            Ok(())
        })
    }

    /// Opens a device of the group by its PCI address, `0000:01:00.0`, with its VF token where it needs one:
    /// `0000:04:10.0 vf_token=UUID`. The group must be attached to a container with an IOMMU.
    ///
    /// # Errors
    /// `ERR_DEVICE_OPEN` with the errno (`ENODEV`: no such device in the group; `EINVAL`: no
    /// container, or one without an IOMMU, or a token that the device does not take; `EACCES`: no
    /// token, or a wrong one), `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`,
    /// `ERR_VFIO_UNSUPPORTED` for what is no PCI device.
    pub fn open_device(&self, name: &str) -> Result<Device> {
        let parsed = DeviceName::parse(name)?;
        let (bdf, name) = (parsed.address, parsed.for_group()?);
        let (fd, use_of_group) = self.inner.with(|open| {
            let fd = ioctl::group_get_device_fd(open.fd.as_fd(), &name).map_err(|errno| {
                let what = format!("opening device {bdf} of VFIO group {}", self.inner.id);
                Error::os(
                    ErrorCode::DeviceOpen,
                    errno,
                    "ioctl(VFIO_GROUP_GET_DEVICE_FD)",
                    what,
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
        Device::new(bdf, fd, Home::Group(use_of_group))
    }

    /// Detaches the group from its container and closes it; a second call does nothing. With the
    /// container's last group all of its IOMMU mappings are gone.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while a device of it is open, here or (`EBUSY`) anywhere.
    pub fn close(&self) -> Result<()> {
        dropper::retry_settled(|| self.close_unused())
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
        let gone = guard.take();
        drop(guard);
        // Each may be the last of many things, and dropping those may take locks.
        drop((gone, leases));
        Ok(())
    }
}

impl GroupInner {
    fn with<T>(&self, f: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        let mut open = lock(&self.open);
        match open.as_mut() {
            Some(open) => f(open),
            None => Err(closed(self.id)),
        }
    }
}

impl GroupInner {
    /// Calls `f` with the descriptors of groups, each once, which stay open during the call.
    pub(super) fn with_descriptors<T>(
        mut groups: Vec<&Arc<Self>>,
        f: impl FnOnce(&[BorrowedFd<'_>]) -> T,
    ) -> Result<T> {
        // In one order everywhere: nobody waits for a group while holding one with a higher number. The kernel
        // lets a group be open but once, so one number is one group.
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
        if let Some(Open { fd, container, .. }) = owned(&mut self.open).take() {
            let id = self.id;
            dropper::drop_later(Unclosed { id, fd, container });
        }
    }
}

/// A group that nobody closed, and whose devices are gone.
struct Unclosed {
    id: u32,
    fd: OwnedFd,
    container: Option<Arc<ContainerInner>>,
}

impl Drop for Unclosed {
    fn drop(&mut self) {
        if let Some(container) = &self.container
            && container.detach(self.fd.as_fd(), self.id).is_err()
        {
            container.strand();
        }
    }
}

/// Held by an open device: its group can't be closed.
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
