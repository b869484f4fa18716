//! An address space of iommufd, which any number of devices share.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::context::Iommufd;
use super::dirty::Logging;
use super::ioctl;
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::memory::{Lease, Leases, MemoryFile};
use crate::vfio::DeviceMapping;
use crate::{Error, ErrorCode, Range, Result};

/// What an address space can do (`IOMMU_IOAS_IOVA_RANGES`). Changes with every device attached or detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoasInfo {
    /// What both ends of a mapping must be multiples of, in bytes.
    pub alignment: u64,
    /// Where mappings may be, sorted.
    pub iova_ranges: Vec<Range>,
}

/// What the record of a mapping keeps for as long as the kernel has it.
#[derive(Debug)]
pub(super) enum Keeps {
    /// Memory of this process.
    Memory(Lease),
    /// The kernel holds the pages of a file itself. A part of a file loses them without an owner: the record is one.
    File(Option<MemoryFile>),
    /// The device, which can't be closed meanwhile: the kernel would make the mapping void without a word.
    #[expect(dead_code, reason = "it is there to be dropped")]
    Bar(DeviceMapping),
}

/// What records kept, to be dropped together outside of locks.
#[derive(Debug, Default)]
pub(super) struct Gone {
    leases: Leases,
    others: Vec<Keeps>,
}

impl Extend<Keeps> for Gone {
    fn extend<I: IntoIterator<Item = Keeps>>(&mut self, all: I) {
        for keeps in all {
            match keeps {
                Keeps::Memory(lease) => self.leases.extend([lease]),
                Keeps::File(None) => {}
                other => self.others.push(other),
            }
        }
    }
}

impl FromIterator<Keeps> for Gone {
    fn from_iter<I: IntoIterator<Item = Keeps>>(all: I) -> Self {
        let mut gone = Self::default();
        gone.extend(all);
        gone
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// `None` once it is destroyed.
    open: Option<Open>,
    pub(super) mappings: Mappings<Keeps>,
}

/// Which address space it is, of which iommufd.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) iommufd: Iommufd,
    pub(super) id: u32,
}

impl Open {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.iommufd.fd()
    }

    /// Destroys the address space, its page tables before: they stand on it.
    fn destroy(&self, tables: &mut Vec<u32>) -> Result<()> {
        let failed = |errno, what: &str| {
            let code = match errno {
                nix::errno::Errno::EBUSY => ErrorCode::DeviceInUse,
                _ => ErrorCode::System,
            };
            Error::os(code, errno, "ioctl(IOMMU_DESTROY)", what)
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
    /// How many devices are attached, or about to be, and of those how many to no table of the above.
    pub(super) devices: AtomicUsize,
    pub(super) unlogged: AtomicUsize,
    /// How many mappings there are; to be asked without waiting for a mapping in progress.
    count: AtomicUsize,
}

/// An address space. Clones share it; devices attached to it keep it. After the last clone the dropper's thread unmaps
/// everything, as nobody else could any more.
#[derive(Debug, Clone)]
pub struct Ioas {
    pub(super) inner: Arc<IoasInner>,
    _handle: Arc<Handle>,
}

/// What all clones of an address space share, and devices attached to it don't.
#[derive(Debug)]
struct Handle {
    inner: Arc<IoasInner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.inner.count.load(Ordering::Relaxed) > 0 {
            dropper::drop_later(Unreachable(Arc::clone(&self.inner)));
        }
    }
}

/// An address space with mappings and without a handle.
struct Unreachable(Arc<IoasInner>);

impl Drop for Unreachable {
    fn drop(&mut self) {
        // What the kernel refuses to unmap stays on record, and keeps its memory.
        let _ = self.0.unmap_all();
    }
}

impl Ioas {
    /// Makes an empty address space. Until a device is attached, what is mapped is neither pinned nor checked.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn new(iommufd: &Iommufd) -> Result<Self> {
        let id = ioctl::ioas_alloc(iommufd.fd()).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "ioctl(IOMMU_IOAS_ALLOC)",
                "making an address space",
            )
        })?;
        Ok(Self::with_id(iommufd, id))
    }

    /// The empty address space of that number.
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

    /// What the address space can do now: ask again after each device attached or detached.
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
                "asking what an address space can do",
            )
        })?;
        IoasInfo::decode(&ranges, alignment)
    }

    /// How many mappings are on record. Doesn't wait for a call in progress.
    #[must_use]
    pub fn mapping_count(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// Destroys it, with all its mappings; a second call does nothing.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while devices are attached, here or (`EBUSY`) anywhere: it is as before then. `ERR_SYSTEM`.
    pub fn close(&self) -> Result<()> {
        dropper::retry_settled(|| self.inner.destroy())
    }
}

impl IoasInfo {
    /// Takes pairs of first and last address. A range that ends at 2^64 - 1 loses that address, which can't be mapped anyway.
    fn decode(pairs: &[(u64, u64)], alignment: u64) -> Result<Self> {
        let bad = |message| Error::new(ErrorCode::BadKernelData, message);
        if !alignment.is_power_of_two() {
            return Err(bad(format!("an alignment of IOVAs of {alignment:#x}")));
        }
        let mut iova_ranges = Vec::with_capacity(pairs.len());
        for (start, last) in pairs {
            if start > last {
                let message = format!("an IOVA range from {start:#x} ends at {last:#x}");
                return Err(bad(message));
            }
            iova_ranges.extend(Range::between(*start, last.saturating_add(1)));
        }
        iova_ranges.sort_unstable();
        Ok(Self {
            alignment,
            iova_ranges,
        })
    }
}

impl State {
    /// Which it is, unless destroyed.
    pub(super) fn open(&self) -> Result<Open> {
        let closed = || Error::new(ErrorCode::Closed, "the address space is closed");
        self.open.clone().ok_or_else(closed)
    }
}

impl IoasInner {
    /// Which it is, unless destroyed.
    pub(super) fn open(&self) -> Result<Open> {
        lock(&self.state).open()
    }

    /// To be called before the lock goes, whenever the mappings have changed.
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
        let gone: Gone = state.mappings.take_all().collect();
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }
}

impl Drop for IoasInner {
    fn drop(&mut self) {
        let state = owned(&mut self.state);
        if let Some(open) = state.open.take() {
            dropper::drop_later(Undestroyed {
                open,
                tables: std::mem::take(&mut owned(&mut self.logging).tables),
                mappings: std::mem::take(&mut state.mappings),
            });
        }
    }
}

/// An address space that nobody closed, without a device.
struct Undestroyed {
    open: Open,
    tables: Vec<u32>,
    mappings: Mappings<Keeps>,
}

impl Drop for Undestroyed {
    /// If the kernel keeps it, what it maps of this process is leaked, so that nothing else comes to be there.
    fn drop(&mut self) {
        if self.open.destroy(&mut self.tables).is_ok() {
            return;
        }
        self.mappings.take_all().for_each(std::mem::forget);
    }
}

/// Held by a device that is attached, or is about to be: the address space is not destroyed meanwhile.
#[derive(Debug)]
pub(crate) struct Attachment {
    ioas: Arc<IoasInner>,
    logged: bool,
}

impl Attachment {
    /// Counts a device, as one whose writes are not logged, while the address space can't go.
    fn begin(ioas: &Arc<IoasInner>, state: &State) -> Result<(Open, Self)> {
        let open = state.open()?;
        ioas.devices.fetch_add(1, Ordering::AcqRel);
        ioas.unlogged.fetch_add(1, Ordering::AcqRel);
        let attachment = Self {
            ioas: Arc::clone(ioas),
            logged: false,
        };
        Ok((open, attachment))
    }

    fn is_logged(&mut self) {
        self.logged = true;
        self.ioas.unlogged.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.ioas.devices.fetch_sub(1, Ordering::AcqRel);
        if !self.logged {
            self.ioas.unlogged.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Ioas {
    /// Attaches a device that is bound to the same iommufd, by `attach`, which gets the id of what to attach it to. A page
    /// table that logs dirty pages is taken where the IOMMU has such.
    ///
    /// The device counts from before the kernel is asked: an address space that went in between would leave its id to the
    /// next one, and the device would come to be there.
    pub(crate) fn attach(
        &self,
        iommufd: &Iommufd,
        device: u32,
        mut attach: impl FnMut(u32) -> nix::Result<()>,
    ) -> Result<Attachment> {
        let (open, mut attachment) = Attachment::begin(&self.inner, &lock(&self.inner.state))?;
        if !open.iommufd.is(iommufd) {
            let message = "the device is bound to another iommufd than the address space's";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        if self.inner.attach_logged(&open, device, &mut attach)? {
            attachment.is_logged();
            return Ok(attachment);
        }
        attach(open.id).map_err(|errno| {
            Error::os(
                ErrorCode::DeviceAttach,
                errno,
                "ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT)",
                "attaching a device to an address space",
            )
        })?;
        Ok(attachment)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_sorted() {
        let info = IoasInfo::decode(&[(0xfef0_0000, u64::MAX), (0, 0xfedf_ffff)], 4096).unwrap();
        let ends: Vec<(u64, u64)> = info
            .iova_ranges
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect();
        assert_eq!(ends, [(0, 0xfee0_0000), (0xfef0_0000, u64::MAX)]);
        assert_eq!(info.alignment, 4096);
    }

    #[test]
    fn nonsense_of_the_kernel_is_refused() {
        let code = |pairs: &[(u64, u64)], alignment| {
            IoasInfo::decode(pairs, alignment).unwrap_err().code()
        };
        assert_eq!(code(&[(5, 4)], 4096), ErrorCode::BadKernelData);
        assert_eq!(code(&[], 0), ErrorCode::BadKernelData);
        assert_eq!(code(&[], 3), ErrorCode::BadKernelData);
        assert_eq!(IoasInfo::decode(&[], 1).unwrap().iova_ranges, []);
    }
}
