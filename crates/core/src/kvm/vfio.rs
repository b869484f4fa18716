//! Assigned devices of a virtual machine.
//!
//! KVM considers the memory coherence of their DMA (Linux, Documentation/virt/kvm/devices/vfio.rst).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_create_device,
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, VmFd};

use super::system::failed;
use crate::vfio::{Device, KernelFile};
use crate::{Error, ErrorCode, Result};

/// The files of the assigned devices: of their groups, or their own.
#[derive(Debug, Default)]
pub(super) struct VfioFiles {
    device: Option<DeviceFd>,
    files: Vec<VfioFile>,
}

#[derive(Debug)]
struct VfioFile {
    file: KernelFile,
    fd: OwnedFd,
    /// The names of the devices that have it.
    devices: Vec<String>,
}

impl VfioFiles {
    /// Adds the file of a device. Several devices of a group share one.
    pub(super) fn add(&mut self, vm: &VmFd, device: &Device) -> Result<()> {
        let (file, fd) = device.kernel_file()?;
        let name = device.name().to_owned();
        if let Some(known) = self.files.iter_mut().find(|known| known.file == file) {
            known.devices.push(name);
            return Ok(());
        }
        self.set(vm, KVM_DEV_VFIO_FILE_ADD, fd.as_raw_fd(), &file)?;
        let devices = vec![name];
        self.files.push(VfioFile { file, fd, devices });
        Ok(())
    }

    /// Removes the file of a device, with its last device.
    pub(super) fn remove(&mut self, vm: &VmFd, device: &Device) -> Result<()> {
        let has = |known: &VfioFile| known.devices.iter().any(|name| name == device.name());
        let Some(index) = self.files.iter().position(has) else {
            return Ok(());
        };
        let mut known = self.files.swap_remove(index);
        known.devices.retain(|name| name != device.name());
        if known.devices.is_empty() {
            let fd = known.fd.as_raw_fd();
            return self.set(vm, KVM_DEV_VFIO_FILE_DEL, fd, &known.file);
        }
        self.files.push(known);
        Ok(())
    }

    fn set(&mut self, vm: &VmFd, attribute: u32, fd: RawFd, file: &KernelFile) -> Result<()> {
        let operation = format!("assigning {file} to a virtual machine");
        let device = match self.device.take() {
            Some(device) => device,
            None => {
                let mut request = kvm_create_device {
                    type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
                    ..Default::default()
                };
                vm.create_device(&mut request)
                    .map_err(failed("ioctl(KVM_CREATE_DEVICE)", &operation))?
            }
        };
        let device = self.device.insert(device);
        let attribute = kvm_device_attr {
            group: KVM_DEV_VFIO_FILE,
            attr: u64::from(attribute),
            addr: (&raw const fd).expose_provenance() as u64,
            flags: 0,
        };
        device.set_device_attr(&attribute).map_err(|error| {
            let error = failed("ioctl(KVM_SET_DEVICE_ATTR)", operation)(error);
            Error::recast(
                error,
                ErrorCode::System,
                "its interrupts and memory still work",
            )
        })
    }
}
