//! iommufd: address spaces of IOMMUs (IOAS) that take memory by its place in this process, files, and BARs as dma-bufs.
//!
//! An address space's record of a mapping of this process's memory owns a lease of it, and lets go of it only when the kernel
//! has confirmed that the mapping is gone. What is mapped by file needs none: the kernel keeps the pages of a file, and
//! takes a BAR's pages away from the IOMMU itself when the device closes or stops answering.
//!
//! Locks are taken in one order: devices, address spaces. Leases and files are dropped without any of them held.

mod abi;
mod context;
mod dirty;
#[cfg(test)]
mod forgotten_test;
mod ioas;
mod ioctl;
mod map;
#[cfg(test)]
mod unmap_test;

pub use context::Iommufd;
pub(crate) use ioas::Attachment;
pub use ioas::{Ioas, IoasInfo};
