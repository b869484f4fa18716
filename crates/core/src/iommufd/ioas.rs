//! An address space of iommufd, which any number of devices can share.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::context::Iommufd;
use super::dirty::Logging;
use super::info::IoasInfo;
use super::ioctl;
use super::owners::{MemoryOwner, RemovedOwners};
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::{Error, ErrorCode, Result};

#[derive(Debug)]
pub(super) struct State {
    /// `None` after it is destroyed.
    open: Option<Open>,
    pub(super) mappings: Mappings<MemoryOwner>,
}

/// The id of an address space, and its iommufd.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) iommufd: Iommufd,
    pub(super) id: u32,
}

impl Open {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.iommufd.fd()
    }

    /// Destroys the page tables of the address space, then the address space.
    fn destroy(&self, tables: &mut Vec<u32>) -> Result<()> {
        let failed = |errno, operation: &str| {
            let code = match errno {
                nix::errno::Errno::EBUSY => ErrorCode::DeviceInUse,
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

#[derive(Debug)]
pub(crate) struct IoasInner {
    pub(super) state: Mutex<State>,
    pub(super) logging: Mutex<Logging>,
    /// The number of devices that are attached or being attached.
    pub(super) devices: AtomicUsize,
    /// The number of those without dirty-page logging.
    pub(super) unlogged: AtomicUsize,
    /// The number of mappings, readable without waiting for a call in progress.
    count: AtomicUsize,
}

/// An address space. Clones share it; attached devices keep it alive. After the last clone the dropper's thread unmaps
/// everything, because no caller can do so any more.
#[derive(Debug, Clone)]
pub struct Ioas {
    pub(super) inner: Arc<IoasInner>,
    _handle: Arc<Handle>,
}

/// The state that only the clones of an address space share, not the attached devices.
#[derive(Debug)]
struct Handle {
    inner: Arc<IoasInner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.inner.count.load(Ordering::Relaxed) > 0 {
            dropper::drop_later(WithoutHandle(Arc::clone(&self.inner)));
        }
    }
}

/// An address space with mappings and without a handle.
struct WithoutHandle(Arc<IoasInner>);

impl Drop for WithoutHandle {
    fn drop(&mut self) {
        // Mappings that the kernel fails to unmap stay on record, and keep their memory.
        let _ = self.0.unmap_all();
    }
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
        let inner = Arc::new(IoasInner {
            state: Mutex::new(State {
                open: Some(Open {
                    iommufd: iommufd.clone(),
                    id,
                }),
                mappings: Mappings::default(),
            }),
            logging: Mutex::default(),
            devices: AtomicUsize::new(0),
            unlogged: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
        });
        Self {
            _handle: Arc::new(Handle {
                inner: Arc::clone(&inner),
            }),
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
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Destroys the address space with all its mappings; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while devices are attached, here or (`EBUSY`) elsewhere: nothing changes then. `ERR_SYSTEM`.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.inner.destroy())
    }
}

impl State {
    /// Returns the id of the address space, unless it is destroyed.
    pub(super) fn open(&self) -> Result<Open> {
        let closed = || Error::new(ErrorCode::Closed, "the address space is closed");
        self.open.clone().ok_or_else(closed)
    }
}

impl IoasInner {
    /// Returns the id of the address space, unless it is destroyed.
    pub(super) fn open(&self) -> Result<Open> {
        lock(&self.state).open()
    }

    /// Updates the count of mappings; call it before the lock is released, after each change.
    pub(super) fn publish_count(&self, state: &State) {
        self.count.store(state.mappings.len(), Ordering::Relaxed);
    }

    fn destroy(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let Ok(open) = state.open() else {
            return Ok(());
        };
        let devices = self.devices.load(Ordering::Acquire);
        if devices > 0 {
            let message = format!("the address space has {devices} device(s) attached");
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        open.destroy(&mut lock(&self.logging).tables)?;
        state.open = None;
        let removed: RemovedOwners = state.mappings.take_all().collect();
        self.publish_count(&state);
        drop(state);
        drop(removed);
        Ok(())
    }
}

impl Drop for IoasInner {
    fn drop(&mut self) {
        let state = owned(&mut self.state);
        if let Some(open) = state.open.take() {
            dropper::drop_later(UnclosedIoas {
                open,
                tables: std::mem::take(&mut owned(&mut self.logging).tables),
                mappings: std::mem::take(&mut state.mappings),
            });
        }
    }
}

/// An address space that nobody closed, without attached devices.
struct UnclosedIoas {
    open: Open,
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
