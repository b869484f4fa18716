//! The descriptor of a memory file.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::stat::fstat;

use crate::dropper;

/// The descriptor of a file. The kernel frees the pages of an anonymous file when its last descriptor is closed.
#[derive(Debug)]
pub(super) struct MemoryFd {
    fd: ManuallyDrop<OwnedFd>,
    hugetlb: bool,
}

impl MemoryFd {
    pub(super) const fn new(fd: OwnedFd, hugetlb: bool) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            hugetlb,
        }
    }
}

impl AsFd for MemoryFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for MemoryFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for MemoryFd {
    fn drop(&mut self) {
        // Huge pages are few, so closing is fast, and the next file may require these pages at once. The kernel
        // counts in units of 512 bytes.
        let blocks = if self.hugetlb {
            0
        } else {
            fstat(&*self).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0))
        };
        // SAFETY: the descriptor is not used after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        dropper::drop_memory(blocks.saturating_mul(512), fd);
    }
}
