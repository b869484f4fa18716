//! VFIO: PCI devices, by groups in containers with a type1v2 IOMMU or by their own files with iommufd.
//!
//! Ownership mirrors the kernel's: a device keeps its group open, a group its container; or a device its iommufd, and the
//! address space that it is attached to. A
//! container's record of each IOMMU mapping owns a lease of the memory, and lets go of it only when
//! the kernel has confirmed that the mapping is gone: after an unmap whose size agrees, or when the
//! container's last group was detached, which destroys all its mappings.
//!
//! Locks are taken in one order: devices (several by their address in memory), groups (several by their
//! number), container or address space. Leases and devices are dropped without
//! any of them held.

mod abi;
mod access;
mod caps;
mod cdev;
mod container;
mod container_state;
mod device;
mod dirty;
mod dma;
mod dma_buf;
#[cfg(test)]
mod forgotten_test;
mod group;
mod hot_reset;
mod info;
mod ioctl;
mod ioctl_feature;
mod ioctl_hot_reset;
mod ioctl_irq;
mod irq;
mod power;
mod region;
#[cfg(test)]
mod reset_test;
mod token;
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
