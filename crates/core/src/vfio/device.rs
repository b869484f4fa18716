//! A PCI device in VFIO's hands.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use nix::errno::Errno;
use nix::sys::uio::pread;

use super::abi::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_PCI_CONFIG_REGION_INDEX};
use super::cdev::Binding;
use super::dma_buf::DmaBuf;
use super::group::{GroupInner, GroupUse};
use super::info::RegionInfo;
use super::ioctl;
use super::ioctl_feature::set_vf_token;
use super::power::{Capabilities, is_silent};
use super::region::RegionWindow;
use super::token::VfToken;
use crate::dropper;
use crate::locked::{read, write};
use crate::memory::MemoryFile;
use crate::range::to_offset;
use crate::{Error, ErrorCode, Result};

/// More regions than any device has; a bound for the questions asked when it is opened.
const MOST_REGIONS: u32 = 256;

/// What is there only while the device is open, in the order in which it goes.
#[derive(Debug)]
pub(super) struct Open {
    /// The BARs mapped for single accesses. They keep the file open in the kernel: first to go.
    pub(super) windows: Mutex<Vec<RegionWindow>>,
    /// Areas of BARs that were given out to iommufd.
    pub(super) dma_bufs: Mutex<Vec<Arc<DmaBuf>>>,
    pub(super) fd: OwnedFd,
    pub(super) home: Home,
}

/// By what the device was opened. It goes after the device's file, which keeps it in the kernel.
#[derive(Debug)]
pub(super) enum Home {
    Group(GroupUse),
    Iommufd(Binding),
}

impl Open {
    /// The group it was opened by, which is open for at least as long.
    pub(super) fn group(&self) -> Option<&Arc<GroupInner>> {
        match &self.home {
            Home::Group(group) => Some(group.group()),
            Home::Iommufd(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct DeviceInner {
    pub(super) name: String,
    /// Read for anything that uses the device; written for what may turn its memory off (writes to
    /// config space, a reset of the device or its bus) and for closing.
    pub(super) open: RwLock<Option<Open>>,
    pub(super) regions: Vec<Option<RegionInfo>>,
    can_reset: bool,
    /// Placements of its memory in reservations, and mappings of it as dma-bufs.
    mappings: AtomicUsize,
    capabilities: OnceLock<Capabilities>,
    accessible: AtomicBool,
    /// How often the kernel has taken its memory out of IOMMUs that had it as dma-bufs, as far as that was done here.
    revocations: AtomicU64,
}

/// An open device. Clones share it.
#[derive(Debug, Clone)]
pub struct Device {
    pub(super) inner: Arc<DeviceInner>,
}

impl Device {
    /// Takes over a device's descriptor.
    pub(super) fn new(name: &str, fd: OwnedFd, home: Home) -> Result<Self> {
        let open = Open {
            windows: Mutex::default(),
            dma_bufs: Mutex::default(),
            fd,
            home,
        };
        let fd = open.fd.as_fd();
        let asking = |errno, syscall| {
            Error::os(
                ErrorCode::DeviceOpen,
                errno,
                syscall,
                format!("asking what device {name} has"),
            )
        };
        let info = ioctl::device_get_info(fd)
            .map_err(|errno| asking(errno, "ioctl(VFIO_DEVICE_GET_INFO)"))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(Error::new(
                ErrorCode::VfioUnsupported,
                format!("device {name} is not a PCI device"),
            ));
        }
        let mut regions = Vec::new();
        for index in 0..info.num_regions.min(MOST_REGIONS) {
            regions.push(match ioctl::device_get_region_info(fd, index) {
                Ok(bytes) => RegionInfo::decode(&bytes)
                    .map_err(|error| error.context(format!("device {name}, region {index}")))?,
                Err(Errno::EINVAL) => None, // A region this device doesn't have, as VGA.
                Err(errno) => return Err(asking(errno, "ioctl(VFIO_DEVICE_GET_REGION_INFO)")),
            });
        }
        let can_reset = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        Ok(Self::with_regions(name, open, regions, can_reset))
    }

    fn with_regions(
        name: &str,
        open: Open,
        regions: Vec<Option<RegionInfo>>,
        can_reset: bool,
    ) -> Self {
        let inner = DeviceInner {
            name: name.to_owned(),
            open: RwLock::new(Some(open)),
            regions,
            can_reset,
            mappings: AtomicUsize::new(0),
            capabilities: OnceLock::new(),
            accessible: AtomicBool::new(false),
            revocations: AtomicU64::new(0),
        };
        if let Some(open) = read(&inner.open).as_ref() {
            inner.refresh(open.fd.as_fd());
        }
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A device without a kernel behind it, with these bytes as config space at the start of its file.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn fake(config: &[u8], can_reset: bool) -> Self {
        Self::fake_of(&super::Group::fake(None), config, can_reset)
    }

    /// The same, of a group.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn fake_of(group: &super::Group, config: &[u8], can_reset: bool) -> Self {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let fd = memfd_create("config", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::sys::uio::pwrite(&fd, config, 0).unwrap();
        let mut regions = vec![None; usize::try_from(VFIO_PCI_CONFIG_REGION_INDEX).unwrap()];
        regions.push(Some(RegionInfo {
            length: config.len().try_into().unwrap(),
            file_offset: 0,
            readable: true,
            writable: true,
            mmap_areas: Vec::new(),
            msix_mappable: false,
        }));
        let open = Open {
            windows: Mutex::default(),
            dma_bufs: Mutex::default(),
            fd,
            home: Home::Group(group.fake_use()),
        };
        Self::with_regions("fake", open, regions, can_reset)
    }

    #[cfg(test)]
    pub(crate) const fn inner(&self) -> &Arc<DeviceInner> {
        &self.inner
    }

    /// Describes a region (BARs 0 to 5, 6 the ROM, 7 config space, 8 VGA, and more); `None` where the
    /// device has none of that index.
    #[must_use]
    pub fn region_info(&self, index: u32) -> Option<&RegionInfo> {
        self.inner
            .regions
            .get(usize::try_from(index).ok()?)?
            .as_ref()
    }

    /// Whether its BARs answer: memory decode is on and it isn't in D3hot, as of the last write to
    /// config space or reset through this device. False once it is closed.
    #[must_use]
    pub fn memory_accessible(&self) -> bool {
        self.inner.is_accessible()
    }

    /// How often what IOMMUs map of its BARs as dma-bufs was taken away from them by what was done through this device:
    /// memory decode off, D3hot, a reset. What was mapped before the last time is void, and has to be mapped anew.
    #[must_use]
    pub fn revocations(&self) -> u64 {
        self.inner.revocations.load(Ordering::Acquire)
    }

    /// Its memory, to be placed in a reservation: the device's file, of which a region begins at
    /// its [`file_offset`](RegionInfo::file_offset).
    ///
    /// # Errors
    /// `ERR_CLOSED`.
    pub fn memory_file(&self) -> Result<MemoryFile> {
        self.inner.with_fd(|_| ())?;
        MemoryFile::from_device(Arc::clone(&self.inner))
    }

    /// Resets it. The kernel saves and restores its config space.
    ///
    /// # Errors
    /// `ERR_RESET_UNSUPPORTED`; `ERR_BAD_CONFIG_SPACE` where it did not return from the reset; `ERR_CLOSED`,
    /// `ERR_SYSTEM`.
    pub fn reset(&self) -> Result<()> {
        let open = write(&self.inner.open);
        let fd = self.inner.expect_open(open.as_ref())?.fd.as_fd();
        let result = ioctl::device_reset(fd);
        // Before it tries, the kernel refuses a device that it has no way of resetting, and revokes the
        // dma-bufs of any other (`vfio_pci_ioctl_reset`).
        if result.is_ok() || self.inner.can_reset {
            self.inner.was_reset(fd);
        }
        result.map_err(|errno| {
            if errno == Errno::ENOTTY && self.inner.is_silent(fd) {
                return self.inner.not_returned("ioctl(VFIO_DEVICE_RESET)");
            }
            let code = match errno {
                Errno::EINVAL | Errno::ENOTTY => ErrorCode::ResetUnsupported,
                _ => ErrorCode::System,
            };
            Error::os(
                code,
                errno,
                "ioctl(VFIO_DEVICE_RESET)",
                format!("resetting device {}", self.inner.name),
            )
        })
    }

    /// Sets the VF token of a physical function. Opening one of its virtual functions requires it from now on.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` for what is not a physical function with SR-IOV; `ERR_INVALID_ARGUMENT` for a token that is
    /// not a UUID, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn set_vf_token(&self, token: &str) -> Result<()> {
        let token = VfToken::parse(token)?;
        let set = self.inner.with_fd(|fd| set_vf_token(fd, token))?;
        set.map_err(|errno| {
            let code = match errno {
                Errno::ENOTTY => ErrorCode::Unsupported,
                _ => ErrorCode::System,
            };
            let what = format!("setting the VF token of device {}", self.inner.name);
            Error::os(code, errno, "ioctl(VFIO_DEVICE_FEATURE)", what)
        })
    }

    /// Closes it; a second call does nothing. Handles of its memory file fail from then on.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while its memory is placed in a reservation, or mapped as a dma-buf.
    pub fn close(&self) -> Result<()> {
        dropper::retry_settled(|| self.close_unmapped())
    }

    fn close_unmapped(&self) -> Result<()> {
        let mut open = write(&self.inner.open);
        let mappings = self.inner.mappings.load(Ordering::Acquire);
        if mappings > 0 && open.is_some() {
            let message = format!(
                "device {} has memory placed in a reservation, or mapped by an IOMMU ({mappings} time(s))",
                self.inner.name
            );
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        let gone = open.take();
        self.inner.accessible.store(false, Ordering::Release);
        drop(open);
        drop(gone);
        Ok(())
    }
}

impl Drop for DeviceInner {
    /// The kernel may reset a device when its file is closed.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.take() {
            dropper::drop_later(open);
        }
    }
}

impl DeviceInner {
    /// Calls `f` with the descriptor, which stays open during the call.
    pub(crate) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T> {
        let open = read(&self.open);
        Ok(f(self.expect_open(open.as_ref())?.fd.as_fd()))
    }

    /// Announces a placement in a reservation, or a mapping as a dma-buf: the device can't be closed until what this returns
    /// is dropped.
    pub(crate) fn begin_mapping(self: &Arc<Self>) -> Result<DeviceMapping> {
        let open = read(&self.open);
        self.expect_open(open.as_ref())?;
        self.mappings.fetch_add(1, Ordering::AcqRel);
        Ok(DeviceMapping {
            device: Arc::clone(self),
        })
    }

    pub(super) fn expect_open<'a>(&self, open: Option<&'a Open>) -> Result<&'a Open> {
        open.ok_or_else(|| Error::new(ErrorCode::Closed, format!("device {} is closed", self.name)))
    }

    /// Whether its BARs answer, as of the last write to config space or reset that is done; false once it is
    /// closed. Takes no lock: a reset holds `open` for as long as it takes.
    pub(crate) fn is_accessible(&self) -> bool {
        self.accessible.load(Ordering::Acquire)
    }

    /// Looks again whether memory is accessible. Where it no longer is, the kernel has revoked its dma-bufs.
    pub(super) fn refresh(&self, fd: BorrowedFd<'_>) {
        let accessible = self.reads_accessible(fd);
        if self.accessible.swap(accessible, Ordering::AcqRel) && !accessible {
            self.revocations.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The same after a reset, which revokes them whether memory is accessible then or not.
    pub(super) fn was_reset(&self, fd: BorrowedFd<'_>) {
        let accessible = self.reads_accessible(fd);
        self.accessible.store(accessible, Ordering::Release);
        self.revocations.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether writing that to config space resets the function.
    pub(super) fn would_reset(&self, fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> bool {
        let places = self.capabilities(fd);
        places.is_some_and(|places| {
            places.resets_function(|at| self.config_field(fd, at), offset, bytes)
        })
    }

    fn reads_accessible(&self, fd: BorrowedFd<'_>) -> bool {
        let places = self.capabilities(fd);
        places.is_some_and(|places| places.memory_accessible(|at| self.config_field(fd, at)))
    }

    /// Found once, when the device answers for the first time.
    fn capabilities(&self, fd: BorrowedFd<'_>) -> Option<&Capabilities> {
        if self.capabilities.get().is_none() {
            let found = Capabilities::find(|at| self.config_field(fd, at))?;
            return Some(self.capabilities.get_or_init(|| found));
        }
        self.capabilities.get()
    }

    pub(super) fn is_silent(&self, fd: BorrowedFd<'_>) -> bool {
        is_silent(|at| self.config_field(fd, at))
    }

    /// The kernel reports `ENOTTY` both if it has no way to reset a device and if it waited in vain for the device
    /// after the reset (`pci_dev_wait`). Only the device tells them apart.
    pub(super) fn not_returned(&self, syscall: &'static str) -> Error {
        let message = format!(
            "device {} did not return from its reset: its config space reads as all ones. Reset what is above it, or \
             switch the machine off and on",
            self.name
        );
        Error::os(ErrorCode::BadConfigSpace, Errno::ENOTTY, syscall, message)
    }

    /// 16 bits of config space.
    fn config_field(&self, fd: BorrowedFd<'_>, at: u64) -> Option<u16> {
        let index = usize::try_from(VFIO_PCI_CONFIG_REGION_INDEX).ok()?;
        let config = self.regions.get(index)?.as_ref()?.file_offset;
        let mut field = [0; 2];
        let at = to_offset(config.checked_add(at)?).ok()?;
        (pread(fd, &mut field, at) == Ok(field.len())).then(|| u16::from_le_bytes(field))
    }
}

/// A placement of a device's memory in a reservation, or a mapping of it as a dma-buf.
#[derive(Debug)]
pub(crate) struct DeviceMapping {
    device: Arc<DeviceInner>,
}

impl Drop for DeviceMapping {
    fn drop(&mut self) {
        self.device.mappings.fetch_sub(1, Ordering::AcqRel);
    }
}
