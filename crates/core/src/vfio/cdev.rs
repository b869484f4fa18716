//! Devices opened by their own files, `/dev/vfio/devices/vfioN`. They are bound to an iommufd instead of a group's
//! container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;

use nix::errno::Errno;

use super::abi::{
    VFIO_DEVICE_BIND_FLAG_TOKEN, vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd,
    vfio_device_detach_iommufd_pt,
};
use super::device::{Device, DeviceOwner};
use super::ioctl;
use super::token::{DeviceName, VfToken};
use crate::device_file;
use crate::dropper;
use crate::iommufd::{Attachment, Ioas, Iommufd};
use crate::locked::{lock, read};
use crate::{Descriptor, Error, ErrorCode, Result};

mod raw {
    use super::super::abi::{
        vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd, vfio_device_detach_iommufd_pt,
    };
    use super::super::ioctl::number;

    nix::ioctl_readwrite_bad!(bind_iommufd, number(18), vfio_device_bind_iommufd);
    nix::ioctl_readwrite_bad!(attach_iommufd_pt, number(19), vfio_device_attach_iommufd_pt);
    nix::ioctl_readwrite_bad!(detach_iommufd_pt, number(20), vfio_device_detach_iommufd_pt);
}

/// The size of the structure in Linux 6.6, without the later fields.
const BIND_SIZE: u32 = 16;
/// The size with the token, since Linux 6.17.
const BIND_WITH_TOKEN_SIZE: u32 = 24;
const ATTACH_SIZE: u32 = 12;
const DETACH_SIZE: u32 = 8;

/// The device's binding to an iommufd, until its file is closed.
#[derive(Debug)]
pub(super) struct Binding {
    iommufd: Iommufd,
    id: u32,
    attachment: Mutex<Option<Attachment>>,
}

impl Binding {
    /// Detaches the device before its file is closed.
    ///
    /// Another process may hold the file, and the device would stay attached. If the detachment fails, the address
    /// space of the device cannot be destroyed, and its close reports that.
    pub(super) fn end(&self, device: BorrowedFd<'_>) {
        if lock(&self.attachment).is_some() {
            let _ = detach(device);
        }
    }
}

impl Device {
    /// Opens `/dev/vfio/devices/vfio<number>` and binds it. The device cannot do DMA until it is attached to an
    /// address space. `name` includes the VF token if the device requires one: `0000:04:10.0 vf_token=UUID`.
    ///
    /// # Errors
    /// `ERR_DEVICE_OPEN` with the errno, `ERR_INVALID_ARGUMENT` if the token is not a UUID, `ERR_VFIO_UNSUPPORTED` if
    /// this is not a PCI device.
    ///
    /// The errno is `ENOENT` (no such device, or a kernel before 6.6), `EACCES` (no permission, or the token is missing
    /// or wrong) or `EBUSY` (its group is open). `EINVAL` means that the device is open already or does not accept a
    /// token, as before Linux 6.17. `EPERM` means that interrupt remapping is missing, or that a driver or another
    /// process uses a device of its group.
    pub fn open_by_file(name: &str, number: u32, iommufd: &Iommufd) -> Result<Self> {
        let name = DeviceName::parse(name)?;
        dropper::flush(); // an unclosed handle may keep the file open
        let path = format!("/dev/vfio/devices/vfio{number}");
        let operation = format!("opening device {}", name.address);
        let fd = device_file::open(&path, ErrorCode::DeviceOpen, operation)?;
        Self::bind(name, Descriptor::new(fd), iommufd)
    }

    /// Takes the descriptor of a device's file and binds it. Another process has opened it.
    ///
    /// `name` is as for [`open_by_file`](Self::open_by_file), and the kernel does not compare its address.
    ///
    /// # Errors
    /// As [`open_by_file`](Self::open_by_file). `ERR_INVALID_ARGUMENT` if it is not the file of a device, and
    /// `ERR_DEVICE_IN_USE` if it is bound already, or was opened by its group.
    pub fn from_descriptor(name: &str, descriptor: Descriptor, iommufd: &Iommufd) -> Result<Self> {
        let name = DeviceName::parse(name)?;
        if ioctl::get_api_version(descriptor.as_fd()).is_ok() {
            return Err(descriptor.is_not("the file of a VFIO device"));
        }
        if ioctl::device_get_info(descriptor.as_fd()).is_ok() {
            let message = format!(
                "the file of device {} is bound already, or was opened by its group",
                name.address
            );
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        Self::bind(name, descriptor, iommufd)
    }

    fn bind(name: DeviceName<'_>, file: Descriptor, iommufd: &Iommufd) -> Result<Self> {
        let DeviceName {
            address: name,
            token,
        } = name;
        let id = bind(file.as_fd(), iommufd.fd(), token).map_err(|errno| {
            if errno == Errno::ENOTTY {
                return file.is_not("the file of a VFIO device");
            }
            Error::os(
                ErrorCode::DeviceOpen,
                errno,
                "ioctl(VFIO_DEVICE_BIND_IOMMUFD)",
                format!("binding device {name} to iommufd"),
            )
        })?;
        let binding = Binding {
            iommufd: iommufd.clone(),
            id,
            attachment: Mutex::default(),
        };
        Self::new(name, file.into(), DeviceOwner::Iommufd(binding))
    }

    /// Attaches the device to an address space, which translates all its DMA from now on. Pins the mapped memory,
    /// unless a device with a compatible page table is attached already.
    ///
    /// # Errors
    /// `ERR_DEVICE_ATTACH` with the errno: `EINVAL` (the IOMMU does not support it), `EADDRINUSE` (an existing mapping
    /// is outside of the device's IOVA ranges), `ENOMEM` or `EFAULT`. `ERR_UNSUPPORTED` if dirty-page logging is on and
    /// the device's IOMMU does not support it. `ERR_DEVICE_IN_USE` if it is attached already. `ERR_INVALID_ARGUMENT`
    /// for a device of a group or an address space of another iommufd. `ERR_CLOSED`.
    pub fn attach(&self, ioas: &Ioas) -> Result<()> {
        self.with_binding(|fd, binding| {
            let mut attachment = lock(&binding.attachment);
            if attachment.is_some() {
                let message = format!(
                    "device {} is attached to an address space already",
                    self.inner.name
                );
                return Err(Error::new(ErrorCode::DeviceInUse, message));
            }
            let attached = ioas
                .attach(&binding.iommufd, binding.id, |table| attach(fd, table))
                .map_err(|error| error.context(format!("device {}", self.inner.name)))?;
            *attachment = Some(attached);
            Ok(())
        })
    }

    /// Detaches the device from its address space, after which it cannot do DMA. Does nothing if it is not attached.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an unexpected errno; `ERR_INVALID_ARGUMENT` for a device of a group, `ERR_CLOSED`.
    pub fn detach(&self) -> Result<()> {
        // The attachment may be the last owner of the address space, so it is dropped without a lock.
        let removed = self.with_binding(|fd, binding| {
            let mut attachment = lock(&binding.attachment);
            if attachment.is_none() {
                return Ok(None);
            }
            detach(fd).map_err(|errno| {
                Error::os(
                    ErrorCode::System,
                    errno,
                    "ioctl(VFIO_DEVICE_DETACH_IOMMUFD_PT)",
                    format!(
                        "detaching device {} from its address space",
                        self.inner.name
                    ),
                )
            })?;
            Ok(attachment.take())
        })?;
        drop(removed);
        Ok(())
    }

    fn with_binding<T>(&self, f: impl FnOnce(BorrowedFd<'_>, &Binding) -> Result<T>) -> Result<T> {
        let open = read(&self.inner.open);
        let open = self.inner.expect_open(open.as_ref())?;
        match &open.owner {
            DeviceOwner::Iommufd(binding) => f(open.fd.as_fd(), binding),
            DeviceOwner::Group(_) => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("device {} was opened by its group", self.inner.name),
            )),
        }
    }
}

/// `VFIO_DEVICE_BIND_IOMMUFD`: returns the device's id in the iommufd.
fn bind(
    device: BorrowedFd<'_>,
    iommufd: BorrowedFd<'_>,
    token: Option<VfToken>,
) -> nix::Result<u32> {
    let mut bind = bind_arguments(iommufd.as_raw_fd(), token.as_ref());
    // SAFETY: the structure outlives the call and has at least the bytes of its size field; the token that it points
    // to outlives the call too.
    unsafe { raw::bind_iommufd(device.as_raw_fd(), &raw mut bind) }?;
    Ok(bind.out_devid)
}

/// The result contains the token's address: the token must outlive it.
fn bind_arguments(iommufd: RawFd, token: Option<&VfToken>) -> vfio_device_bind_iommufd {
    let bind = vfio_device_bind_iommufd {
        argsz: BIND_SIZE,
        iommufd,
        ..Default::default()
    };
    let Some(token) = token else { return bind };
    vfio_device_bind_iommufd {
        argsz: BIND_WITH_TOKEN_SIZE,
        flags: VFIO_DEVICE_BIND_FLAG_TOKEN,
        token_uuid_ptr: crate::range::to_u64(token.0.as_ptr().expose_provenance()),
        ..bind
    }
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
fn attach(device: BorrowedFd<'_>, table: u32) -> nix::Result<()> {
    let mut attach = vfio_device_attach_iommufd_pt {
        argsz: ATTACH_SIZE,
        pt_id: table,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and has more bytes than its size field states.
    unsafe { raw::attach_iommufd_pt(device.as_raw_fd(), &raw mut attach) }.map(drop)
}

/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`
fn detach(device: BorrowedFd<'_>) -> nix::Result<()> {
    let mut detach = vfio_device_detach_iommufd_pt {
        argsz: DETACH_SIZE,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and has more bytes than its size field states.
    unsafe { raw::detach_iommufd_pt(device.as_raw_fd(), &raw mut detach) }.map(drop)
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(vfio_device_bind_iommufd, iommufd) == 8);
    assert!(offset_of!(vfio_device_bind_iommufd, out_devid) == 12);
    assert!(offset_of!(vfio_device_bind_iommufd, token_uuid_ptr) == 16);
    assert!(size_of::<vfio_device_bind_iommufd>() >= 24);
    assert!(offset_of!(vfio_device_attach_iommufd_pt, pt_id) == 8);
    assert!(size_of::<vfio_device_attach_iommufd_pt>() >= 12);
    assert!(size_of::<vfio_device_detach_iommufd_pt>() >= 8);
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn binds_with_a_token_only_if_one_is_given() {
        let plain = bind_arguments(7, None);
        assert_eq!((plain.argsz, plain.flags, plain.iommufd), (16, 0, 7));
        assert_eq!(plain.token_uuid_ptr, 0);
        let token = VfToken::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        let bind = bind_arguments(7, Some(&token));
        assert_eq!((bind.argsz, bind.flags, bind.iommufd), (24, 1, 7));
        let address = usize::try_from(bind.token_uuid_ptr).unwrap();
        assert_eq!(address, token.0.as_ptr().addr());
    }
}
