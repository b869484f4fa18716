//! The NUMA node of a file's pages.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nix::sys::mman::ProtFlags;

use super::file::{Kind, MemoryFile, NO_NODE};
use super::policy;
use super::sys::Window;
use crate::range::to_usize;
use crate::{Error, ErrorCode, Result};

impl MemoryFile {
    /// Allocates the missing pages of the file from NUMA node `node` only. The policy belongs to the file (shared
    /// memory) or is set on each of its mappings (hugetlb).
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` (no such node, or a device), `ERR_SYSTEM`.
    pub fn bind_to_node(&self, node: u32) -> Result<()> {
        policy::check_node(node)?;
        let Kind::Memory {
            fd, node: bound, ..
        } = &*self.kind
        else {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "a device's memory has no NUMA policy",
            ));
        };
        let window = Window::new(
            to_usize(self.length()?)?,
            ProtFlags::PROT_READ,
            fd.as_fd(),
            0,
        )
        .map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "mmap",
                "binding a file to a NUMA node",
            )
        })?;
        // SAFETY: the window is ours, mapped for this call.
        unsafe { policy::bind_to_node(window.address(), window.length(), node) }?;
        window.unmap_untouched();
        bound.store(node, Ordering::Relaxed);
        Ok(())
    }

    /// The node to bind each mapping to: only hugetlb does not keep the file's policy.
    pub(crate) fn mapping_node(&self) -> Option<u32> {
        match &*self.kind {
            Kind::Memory {
                hugetlb: true,
                node,
                ..
            } => Some(node.load(Ordering::Relaxed)).filter(|node| *node != NO_NODE),
            _ => None,
        }
    }
}
