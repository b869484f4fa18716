//! A PCI device opened through VFIO.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use nix::errno::Errno;
use nix::sys::uio::pread;

use super::abi::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_PCI_CONFIG_REGION_INDEX};
use super::cdev::Binding;
use super::config_space::{Capabilities, is_absent};
use super::dma_buf::DmaBuf;
use super::group::{GroupInner, GroupUse};
use super::info::RegionInfo;
use super::ioctl;
use super::ioctl_feature::set_vf_token;
use super::region::RegionWindow;
use super::token::VfToken;
use crate::dropper;
use crate::locked::{read, write};
use crate::memory::MemoryFile;
use crate::range::to_offset;
use crate::{Error, ErrorCode, Result};

/// The largest number of regions to query at open; no device has as many.
const MAX_REGIONS: u32 = 256;

/// The state of an open device. Its fields are dropped in this order.
#[derive(Debug)]
pub(super) struct OpenDevice {
    /// The BARs mapped for single accesses. They keep the file open in the kernel, so they are dropped first.
    pub(super) windows: Mutex<Vec<RegionWindow>>,
    /// The areas of BARs exported to iommufd.
    pub(super) dma_bufs: Mutex<Vec<Arc<DmaBuf>>>,
    /// The session that transfers migration data. Drivers expect that it ends before the device is closed.
    pub(super) migration: Mutex<Option<Arc<OwnedFd>>>,
    pub(super) fd: OwnedFd,
    pub(super) owner: DeviceOwner,
}

/// The owner that the device was opened through. It is dropped after the device's file, which keeps it in use in the
/// kernel.
#[derive(Debug)]
pub(super) enum DeviceOwner {
    Group(GroupUse),
    Iommufd(Binding),
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        if let DeviceOwner::Iommufd(binding) = &self.owner {
            binding.end(self.fd.as_fd());
        }
    }
}

impl OpenDevice {
    /// The group through which the device was opened, if any.
    pub(super) fn group(&self) -> Option<&Arc<GroupInner>> {
        match &self.owner {
            DeviceOwner::Group(group) => Some(group.group()),
            DeviceOwner::Iommufd(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct DeviceInner {
    pub(super) name: String,
    /// Locked shared for any use of the device, and exclusively to close it or to disable its memory. Writes to config
    /// space and a reset of the device or its bus may disable its memory.
    pub(super) open: RwLock<Option<OpenDevice>>,
    pub(super) regions: Vec<Option<RegionInfo>>,
    can_reset: bool,
    /// The number of mappings of its memory: in reservations, and as dma-bufs.
    mappings: AtomicUsize,
    capabilities: OnceLock<Capabilities>,
    accessible: AtomicBool,
    /// The number of times that the kernel has revoked the device's dma-bufs. Counts operations through this device.
    revocations: AtomicU64,
}

/// An open device. Clones share it.
#[derive(Debug, Clone)]
pub struct Device {
    pub(super) inner: Arc<DeviceInner>,
}

impl Device {
    /// Creates a device from its descriptor.
    pub(super) fn new(name: &str, fd: OwnedFd, owner: DeviceOwner) -> Result<Self> {
        let open = OpenDevice {
            windows: Mutex::default(),
            dma_bufs: Mutex::default(),
            migration: Mutex::default(),
            fd,
            owner,
        };
        let fd = open.fd.as_fd();
        let failed = |errno, syscall| {
            Error::os(
                ErrorCode::DeviceOpen,
                errno,
                syscall,
                format!("reading the properties of device {name}"),
            )
        };
        let info = ioctl::device_get_info(fd)
            .map_err(|errno| failed(errno, "ioctl(VFIO_DEVICE_GET_INFO)"))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(Error::new(
                ErrorCode::VfioUnsupported,
                format!("device {name} is not a PCI device"),
            ));
        }
        let mut regions = Vec::new();
        for index in 0..info.num_regions.min(MAX_REGIONS) {
            regions.push(match ioctl::device_get_region_info(fd, index) {
                Ok(bytes) => RegionInfo::decode(&bytes)
                    .map_err(|error| error.context(format!("device {name}, region {index}")))?,
                Err(Errno::EINVAL) => None, // The device does not have this region, such as VGA.
                Err(errno) => return Err(failed(errno, "ioctl(VFIO_DEVICE_GET_REGION_INFO)")),
            });
        }
        let can_reset = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        Ok(Self::with_regions(name, open, regions, can_reset))
    }

    fn with_regions(
        name: &str,
        open: OpenDevice,
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

    /// Creates a device without a kernel, with these bytes as config space at the start of its file.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn fake(config: &[u8], can_reset: bool) -> Self {
        Self::fake_of(&super::Group::fake(None), config, can_reset)
    }

    /// Creates a fake device of a group.
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
        let open = OpenDevice {
            windows: Mutex::default(),
            dma_bufs: Mutex::default(),
            migration: Mutex::default(),
            fd,
            owner: DeviceOwner::Group(group.fake_use()),
        };
        Self::with_regions("fake", open, regions, can_reset)
    }

    #[cfg(test)]
    pub(crate) const fn inner(&self) -> &Arc<DeviceInner> {
        &self.inner
    }

    /// Returns the description of a region, or `None` if the device does not have it. Indexes 0 to 5 are the BARs, 6
    /// the ROM, 7 config space, 8 VGA, and more.
    #[must_use]
    pub fn region_info(&self, index: u32) -> Option<&RegionInfo> {
        self.inner
            .regions
            .get(usize::try_from(index).ok()?)?
            .as_ref()
    }

    /// Whether the BARs are enabled: memory decode is on and the device is not in D3hot. The state is as of the last
    /// write to config space or reset through this device. `false` after it is closed.
    #[must_use]
    pub fn memory_accessible(&self) -> bool {
        self.inner.is_accessible()
    }

    /// Returns the number of times that operations through this device revoked the dma-bufs of its BARs. Decode off,
    /// D3hot and a reset do. Mappings made before the last revocation are revoked, and must be made again.
    #[must_use]
    pub fn revocations(&self) -> u64 {
        self.inner.revocations.load(Ordering::Acquire)
    }

    /// Returns the device's memory, to map in a reservation. It is the device's file, in which a region begins at its
    /// [`file_offset`](RegionInfo::file_offset).
    ///
    /// # Errors
    /// `ERR_CLOSED`.
    pub fn memory_file(&self) -> Result<MemoryFile> {
        self.inner.with_fd(|_| ())?;
        MemoryFile::from_device(Arc::clone(&self.inner))
    }

    /// Resets the device. The kernel saves and restores its config space.
    ///
    /// # Errors
    /// `ERR_RESET_UNSUPPORTED`; `ERR_BAD_CONFIG_SPACE` if the device did not return from the reset; `ERR_CLOSED`,
    /// `ERR_SYSTEM`.
    pub fn reset(&self) -> Result<()> {
        let open = write(&self.inner.open);
        let fd = self.inner.expect_open(open.as_ref())?.fd.as_fd();
        let result = ioctl::device_reset(fd);
        // The kernel first rejects a device that it cannot reset. It revokes the dma-bufs of any other device before
        // it tries (`vfio_pci_ioctl_reset`).
        if result.is_ok() || self.inner.can_reset {
            self.inner.was_reset(fd);
        }
        result.map_err(|errno| {
            if errno == Errno::ENOTTY && self.inner.is_absent(fd) {
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

    /// Sets the VF token of a physical function, which opening its virtual functions requires from now on.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if this is not a physical function with SR-IOV; `ERR_INVALID_ARGUMENT` if the token is not a
    /// UUID, `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn set_vf_token(&self, token: &str) -> Result<()> {
        let token = VfToken::parse(token)?;
        let set = self.inner.with_fd(|fd| set_vf_token(fd, token))?;
        set.map_err(|errno| {
            let code = match errno {
                Errno::ENOTTY => ErrorCode::Unsupported,
                _ => ErrorCode::System,
            };
            let operation = format!("setting the VF token of device {}", self.inner.name);
            Error::os(code, errno, "ioctl(VFIO_DEVICE_FEATURE)", operation)
        })
    }

    /// Closes the device; a second call does nothing. Handles of its memory file fail from then on.
    ///
    /// # Errors
    /// `ERR_DEVICE_IN_USE` while its memory is mapped in a reservation or as a dma-buf.
    pub fn close(&self) -> Result<()> {
        dropper::retry_after_flush(|| self.close_unmapped())
    }

    fn close_unmapped(&self) -> Result<()> {
        let mut open = write(&self.inner.open);
        let mappings = self.inner.mappings.load(Ordering::Acquire);
        if mappings > 0 && open.is_some() {
            let message = format!(
                "device {} has memory mapped in a reservation or by an IOMMU ({mappings} time(s))",
                self.inner.name
            );
            return Err(Error::new(ErrorCode::DeviceInUse, message));
        }
        let removed = open.take();
        self.inner.accessible.store(false, Ordering::Release);
        drop(open);
        drop(removed);
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

    /// Calls `f` with the open device, which stays open during the call.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn with_open<T>(&self, f: impl FnOnce(&OpenDevice) -> Result<T>) -> Result<T> {
        let open = read(&self.open);
        f(self.expect_open(open.as_ref())?)
    }

    /// Registers a mapping in a reservation or as a dma-buf. The device cannot be closed until the returned value is
    /// dropped.
    pub(crate) fn begin_mapping(self: &Arc<Self>) -> Result<DeviceMapping> {
        let open = read(&self.open);
        self.expect_open(open.as_ref())?;
        self.mappings.fetch_add(1, Ordering::AcqRel);
        Ok(DeviceMapping {
            device: Arc::clone(self),
        })
    }

    pub(super) fn expect_open<'a>(&self, open: Option<&'a OpenDevice>) -> Result<&'a OpenDevice> {
        open.ok_or_else(|| Error::new(ErrorCode::Closed, format!("device {} is closed", self.name)))
    }

    /// Whether the BARs are enabled, as of the last completed write to config space or reset. After the device is
    /// closed, returns `false`. Takes no lock: a reset holds `open` for its whole duration.
    pub(crate) fn is_accessible(&self) -> bool {
        self.accessible.load(Ordering::Acquire)
    }

    /// Updates whether memory is accessible. If it no longer is, the kernel has revoked the dma-bufs.
    pub(super) fn refresh(&self, fd: BorrowedFd<'_>) {
        let accessible = self.reads_accessible(fd);
        if self.accessible.swap(accessible, Ordering::AcqRel) && !accessible {
            self.revocations.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// As [`refresh`](Self::refresh), after a reset, which always revokes the dma-bufs.
    pub(super) fn was_reset(&self, fd: BorrowedFd<'_>) {
        let accessible = self.reads_accessible(fd);
        self.accessible.store(accessible, Ordering::Release);
        self.revocations.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether writing these bytes to config space resets the function.
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

    /// Found once, when the device first responds.
    fn capabilities(&self, fd: BorrowedFd<'_>) -> Option<&Capabilities> {
        if self.capabilities.get().is_none() {
            let found = Capabilities::find(|at| self.config_field(fd, at))?;
            return Some(self.capabilities.get_or_init(|| found));
        }
        self.capabilities.get()
    }

    pub(super) fn is_absent(&self, fd: BorrowedFd<'_>) -> bool {
        is_absent(|at| self.config_field(fd, at))
    }

    /// The error of a device that did not return from its reset. The kernel returns `ENOTTY` both if it cannot reset
    /// a device and if the device did not return from the reset (`pci_dev_wait`); reading config space distinguishes
    /// them.
    pub(super) fn not_returned(&self, syscall: &'static str) -> Error {
        let message = format!(
            "device {} did not return from its reset: its config space reads as all ones. Reset the bridge above it, or \
             power-cycle the machine",
            self.name
        );
        Error::os(ErrorCode::BadConfigSpace, Errno::ENOTTY, syscall, message)
    }

    /// Reads 16 bits of config space.
    fn config_field(&self, fd: BorrowedFd<'_>, at: u64) -> Option<u16> {
        let index = usize::try_from(VFIO_PCI_CONFIG_REGION_INDEX).ok()?;
        let config = self.regions.get(index)?.as_ref()?.file_offset;
        let mut field = [0; 2];
        let at = to_offset(config.checked_add(at)?).ok()?;
        (pread(fd, &mut field, at) == Ok(field.len())).then(|| u16::from_le_bytes(field))
    }
}

/// A mapping of a device's memory, in a reservation or as a dma-buf.
#[derive(Debug)]
pub(crate) struct DeviceMapping {
    device: Arc<DeviceInner>,
}

impl Drop for DeviceMapping {
    fn drop(&mut self) {
        self.device.mappings.fetch_sub(1, Ordering::AcqRel);
    }
}
