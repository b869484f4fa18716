//! VFIO: PCI devices in containers with a type1v2 IOMMU, or with iommufd. They are opened by groups with the former, by
//! their own files with the latter.
//!
//! Ownership follows the kernel: a device keeps its group open, and a group its container; or a device keeps its
//! iommufd and its address space open. A container's record of an IOMMU mapping owns a lease of the memory, and
//! releases it only after the kernel has confirmed the unmap. An unmap of the recorded size confirms it, and so does
//! detaching the container's last group, which destroys all mappings.
//!
//! Lock order: devices (several in the order of their addresses), groups (several in the order of their numbers),
//! container or address space. Leases and devices are dropped without a lock.

mod abi;
mod access;
mod caps;
mod cdev;
mod config_space;
mod container;
mod container_state;
mod device;
mod dirty;
mod dma;
mod dma_buf;
mod dma_log;
mod group;
mod hot_reset;
mod info;
mod ioctl;
mod ioctl_feature;
mod ioctl_hot_reset;
mod ioctl_irq;
mod ioctl_migration;
mod irq;
#[cfg(target_arch = "x86_64")]
mod kernel_file;
mod migration;
#[cfg(test)]
mod migration_test;
mod region;
#[cfg(test)]
mod reset_test;
mod token;
#[cfg(test)]
mod unclosed_test;
#[cfg(test)]
mod unmap_test;

pub use caps::{Capability, capabilities};
pub use container::Container;
pub use device::Device;
pub(crate) use device::{DeviceInner, DeviceMapping};
pub(crate) use dma_buf::DmaBuf;
pub use group::Group;
pub use hot_reset::ResetDevice;
pub use info::{ContainerInfo, RegionInfo};
pub use irq::IrqKind;
#[cfg(target_arch = "x86_64")]
pub(crate) use kernel_file::KernelFile;
pub use migration::{MigrationState, MigrationSupport, PreCopyInfo};
