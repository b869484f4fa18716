//! An address space of iommufd, which any number of devices can share.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::context::Iommufd;
use super::dirty::Logging;
use super::info::IoasInfo;
use super::ioctl;
use super::owners::{MemoryOwner, RemovedOwners};
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::space::{Handle, Space, SpaceState, check_unmapped, unmap_refused};
use crate::{Error, ErrorCode, Range, Result};

const UNMAP: &str = "ioctl(IOMMU_IOAS_UNMAP)";

#[derive(Debug)]
pub(super) struct IoasState {
    /// `None` after it is destroyed.
    open: Option<OpenIoas>,
    pub(super) mappings: Mappings<MemoryOwner>,
}

/// The id of an address space, and its iommufd.
#[derive(Debug, Clone)]
pub(super) struct OpenIoas {
    pub(super) iommufd: Iommufd,
    pub(super) id: u32,
}

impl OpenIoas {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.iommufd.fd()
    }

    /// Destroys the page tables of the address space, then the address space.
    fn destroy(&self, tables: &mut Vec<u32>) -> Result<()> {
        let failed = |errno, operation: &str| {
            let code = match errno {
                Errno::EBUSY => ErrorCode::DeviceInUse,
                _ => ErrorCode::System,
            };
            Error::os(code, errno, "ioctl(IOMMU_DESTROY)", operation)
        };
        while let Some(table) = tables.last() {
            ioctl::destroy(self.fd(), *table)
                .map_err(|errno| failed(errno, "destroying a page table"))?;
            tables.pop();
        }
        ioctl::destroy(self.fd(), self.id)
            .map_err(|errno| failed(errno, "destroying an address space"))
    }
}

/// An address space, for its handles and attached devices.
pub(super) type IoasInner = Space<IoasState>;

/// The devices of an address space, and their page tables.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(super) logging: Mutex<Logging>,
    /// The number of devices that are attached or being attached.
    pub(super) count: AtomicUsize,
    /// The number of those without dirty-page logging.
    pub(super) unlogged: AtomicUsize,
}

/// An address space. Clones share it; attached devices keep it alive. After the last clone the dropper's thread unmaps
/// everything, because no caller can do so any more.
#[derive(Debug, Clone)]
pub struct Ioas {
    pub(super) inner: Arc<IoasInner>,
    _handle: Arc<Handle<IoasState>>,
}

impl Ioas {
    /// Creates an empty address space. Until a device is attached, the kernel neither pins nor checks mapped memory.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn new(iommufd: &Iommufd) -> Result<Self> {
        let id = ioctl::ioas_alloc(iommufd.fd()).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "ioctl(IOMMU_IOAS_ALLOC)",
                "creating an address space",
            )
        })?;
        Ok(Self::with_id(iommufd, id))
    }

    /// Returns the empty address space with that id.
    pub(super) fn with_id(iommufd: &Iommufd, id: u32) -> Self {
        let open = OpenIoas {
            iommufd: iommufd.clone(),
            id,
        };
        let state = IoasState {
            open: Some(open),
            mappings: Mappings::default(),
        };
        let inner = Space::new(state, Devices::default());
        Self {
            _handle: Handle::new(&inner),
            inner,
        }
    }

    /// Returns the capabilities of the address space, which attaching or detaching a device changes.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_BAD_KERNEL_DATA`, `ERR_SYSTEM`.
    pub fn info(&self) -> Result<IoasInfo> {
        let open = self.inner.open()?;
        let (ranges, alignment) = ioctl::ioas_iova_ranges(open.fd(), open.id).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "ioctl(IOMMU_IOAS_IOVA_RANGES)",
                "reading the capabilities of an address space",
            )
        })?;
        IoasInfo::decode(&ranges, alignment)
    }

    /// Returns the number of recorded mappings. Does not wait for a call in progress.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.inner.count()
    }

    /// Destroys the address space with all its mappings; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while devices are attached, here or (`EBUSY`) elsewhere: nothing changes then. `ERR_SYSTEM`.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.inner.destroy())
    }
}

impl IoasState {
    /// Returns the id of the address space, unless it is destroyed.
    pub(super) fn open(&self) -> Result<OpenIoas> {
        let closed = || Error::new(ErrorCode::Closed, "the address space is closed");
        self.open.clone().ok_or_else(closed)
    }
}

impl IoasInner {
    /// Returns the id of the address space, unless it is destroyed.
    pub(super) fn open(&self) -> Result<OpenIoas> {
        self.lock().open()
    }

    fn destroy(&self) -> Result<()> {
        self.change(|state, removed| {
            let Ok(open) = state.open() else {
                return Ok(());
            };
            let devices = self.unguarded.count.load(Ordering::Acquire);
            if devices > 0 {
                let message = format!("the address space has {devices} device(s) attached");
                return Err(Error::new(ErrorCode::DeviceInUse, message));
            }
            open.destroy(&mut lock(&self.unguarded.logging).tables)?;
            state.open = None;
            removed.extend(state.mappings.take_all());
            Ok(())
        })
    }
}

impl SpaceState for IoasState {
    type Owner = MemoryOwner;
    type Removed = RemovedOwners;
    type Unguarded = Devices;

    fn mappings(&self) -> &Mappings<MemoryOwner> {
        &self.mappings
    }

    fn check_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    fn unmap(&mut self, range: &Range, removed: &mut RemovedOwners) -> Result<()> {
        let open = self.open()?;
        if let Some(cut) = self.mappings.cut_by(range) {
            let message = format!("unmapping IOVA {range} would cut the mapping {cut}");
            return Err(Error::new(ErrorCode::UnmapFailed, message).at(cut));
        }
        while let Some(one) = self.mappings.next_within(range) {
            let answer = ioctl::ioas_unmap(open.fd(), open.id, one.start(), one.len());
            check_unmapped(UNMAP, &one, one.len(), answer).map_err(|error| error.at(one))?;
            self.mappings.take_within(&one, removed);
        }
        Ok(())
    }

    fn unmap_all(&mut self, removed: &mut RemovedOwners) -> Result<()> {
        let open = self.open()?;
        match ioctl::ioas_unmap(open.fd(), open.id, 0, u64::MAX) {
            Ok(_) => {}
            // Some kernels return ENOENT if there is no mapping at all.
            Err(Errno::ENOENT) if self.mappings.len() == 0 => {}
            Err(errno) => return Err(unmap_refused(UNMAP, &Range::new(0, u64::MAX)?, errno)),
        }
        removed.extend(self.mappings.take_all());
        Ok(())
    }

    fn end(&mut self, devices: &mut Devices) {
        if let Some(open) = self.open.take() {
            dropper::drop_later(UnclosedIoas {
                open,
                tables: std::mem::take(&mut owned(&mut devices.logging).tables),
                mappings: std::mem::take(&mut self.mappings),
            });
        }
    }
}

/// An address space without attached devices that was dropped instead of closed.
struct UnclosedIoas {
    open: OpenIoas,
    tables: Vec<u32>,
    mappings: Mappings<MemoryOwner>,
}

impl Drop for UnclosedIoas {
    /// If the kernel does not destroy it, leaks the mapped memory, so that nothing else is mapped there.
    fn drop(&mut self) {
        if self.open.destroy(&mut self.tables).is_ok() {
            return;
        }
        self.mappings.take_all().for_each(std::mem::forget);
    }
}
