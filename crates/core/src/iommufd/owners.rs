//! The owners of mapped memory, which the records of mappings keep.

use crate::memory::{Lease, Leases, MemoryFile};
use crate::vfio::DeviceMapping;

/// The owner of a mapping's memory, which the mapping's record keeps while the mapping exists.
#[derive(Debug)]
pub(super) enum MemoryOwner {
    /// Memory of this process.
    Memory(Lease),
    /// The kernel holds the pages of a file itself. A part of a file requires an owner: this handle is one.
    File(Option<MemoryFile>),
    /// The device, which cannot be closed meanwhile: the kernel would silently revoke the mapping.
    #[expect(dead_code, reason = "only its drop matters")]
    Bar(DeviceMapping),
}

/// Owners of removed records, to drop together after the locks are released.
#[derive(Debug, Default)]
pub(super) struct RemovedOwners {
    leases: Leases,
    others: Vec<MemoryOwner>,
}

impl Extend<MemoryOwner> for RemovedOwners {
    fn extend<I: IntoIterator<Item = MemoryOwner>>(&mut self, all: I) {
        for owner in all {
            match owner {
                MemoryOwner::Memory(lease) => self.leases.extend([lease]),
                MemoryOwner::File(None) => {}
                other => self.others.push(other),
            }
        }
    }
}

impl FromIterator<MemoryOwner> for RemovedOwners {
    fn from_iter<I: IntoIterator<Item = MemoryOwner>>(all: I) -> Self {
        let mut removed = Self::default();
        removed.extend(all);
        removed
    }
}
