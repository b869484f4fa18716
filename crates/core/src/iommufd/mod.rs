//! iommufd: IOMMU address spaces (IOAS) that map memory of this process, files, and BARs as dma-bufs.
//!
//! The record of a mapping of this process's memory owns a lease of it, and releases the lease only after the kernel
//! has confirmed the unmap. A mapping of a file requires no lease: the kernel holds the pages of a file itself, and
//! removes a BAR's pages from the IOMMU when the device closes or the BAR is disabled.
//!
//! Lock order: device, then address space. Leases and files are dropped without a lock.

mod abi;
mod attachment;
mod context;
mod dirty;
mod info;
mod ioas;
mod ioctl;
mod map;
mod owners;
#[cfg(test)]
mod unclosed_test;
#[cfg(test)]
mod unmap_test;

pub(crate) use attachment::Attachment;
pub use context::Iommufd;
pub use info::IoasInfo;
pub use ioas::Ioas;
