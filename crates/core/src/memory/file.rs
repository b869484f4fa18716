//! Memory that has a file descriptor: memfds, files given by the caller, and VFIO devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::ProtFlags;
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;

use super::huge::{HugePages, huge_page_code};
use super::memory_fd::MemoryFd;
use super::policy;
use super::sys::Window;
use crate::dropper;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::vfio::{DeviceInner, DeviceMapping};
use crate::{Error, ErrorCode, Range, Result, host_page_size};

const NO_NODE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) enum Kind {
    Memory {
        fd: MemoryFd,
        /// Its length, if that is sealed for good.
        fixed: Option<u64>,
        hugetlb: bool,
        page_size: u64,
        node: AtomicU32,
        /// The kernel has mapped parts of it for reading (1), for writing (2).
        mapped: AtomicU8,
    },
    Device {
        device: Arc<DeviceInner>,
        page_size: u64,
    },
}

/// Memory behind a file descriptor, which can be placed in a reservation and mapped for DMA.
/// Clones share it. What is placed in a reservation stays alive there after the last clone is gone.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    pub(super) kind: Arc<Kind>,
    /// The part that this handle is for; `None` for the whole file. Its memory is released with its last owner.
    pub(super) part: Option<Arc<Range>>,
}

impl MemoryFile {
    /// Creates an anonymous file of `length` zero bytes (`memfd_create`). Its length is sealed for
    /// good: it neither shrinks nor grows, so that no mapping of it can end up past its end.
    /// Huge pages are reserved here, so that touching them can't fail later for want of pages.
    ///
    /// # Errors
    /// `ERR_EMPTY_RANGE`, `ERR_UNALIGNED` (`length` is no multiple of the page size),
    /// `ERR_OUT_OF_RANGE` (beyond 2^63 - 1), `ERR_INVALID_ARGUMENT` (a name with NUL or over 249
    /// bytes), `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_SYSTEM`.
    pub fn create(length: u64, name: &str, huge_pages: HugePages) -> Result<Self> {
        let (page_size, huge_flags) = match huge_pages {
            HugePages::None => (host_page_size()?, MFdFlags::empty()),
            HugePages::Size2M => (1 << 21, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB),
            HugePages::Size1G => (1 << 30, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_1GB),
        };
        let hugetlb = huge_pages != HugePages::None;
        Range::new(0, length)?;
        check_aligned(
            length,
            page_size,
            format_args!("the length {length:#x} of memory file '{name}'"),
        )?;
        let size = to_offset(length)?;
        if name.len() > 249 || name.contains('\0') {
            let message = "the name of a memory file must have at most 249 bytes and no NUL";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let what = || format!("creating memory file '{name}' of {length:#x} bytes");
        let code = |errno| {
            if hugetlb {
                huge_page_code(errno)
            } else {
                ErrorCode::System
            }
        };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | huge_flags;
        let fd = memfd_create(name, flags)
            .map_err(|errno| Error::os(code(errno), errno, "memfd_create", what()))?;
        ftruncate(&fd, size).map_err(|errno| Error::os(code(errno), errno, "ftruncate", what()))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|errno| Error::os(ErrorCode::System, errno, "fcntl(F_ADD_SEALS)", what()))?;
        if hugetlb {
            // A shared mapping of hugetlb reserves its pages, and the reservation stays with the file.
            Window::new(to_usize(length)?, ProtFlags::PROT_READ, fd.as_fd(), 0)
                .map_err(|errno| Error::os(huge_page_code(errno), errno, "mmap", what()))?
                .unmap_untouched();
        }
        let node = AtomicU32::new(NO_NODE);
        Ok(Self {
            kind: Arc::new(Kind::Memory {
                fd: MemoryFd::new(fd, hugetlb),
                fixed: Some(length),
                hugetlb,
                page_size,
                node,
                mapped: AtomicU8::new(0),
            }),
            part: None,
        })
    }

    /// A file that the caller has open: memfd, hugetlbfs, shared memory or a regular file. The
    /// descriptor is duplicated (`F_DUPFD_CLOEXEC`); the caller keeps and closes its own.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` where `fd` is not open (`EBADF`), `ERR_SYSTEM`.
    pub fn from_fd(fd: RawFd) -> Result<Self> {
        if fd < 0 {
            return Err(bad_fd(fd));
        }
        // SAFETY: a plain number goes in; the kernel answers EBADF where it is no open descriptor.
        let result = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        let copy = Errno::result(result).map_err(|errno| match errno {
            Errno::EBADF => bad_fd(fd),
            _ => Error::os(
                ErrorCode::System,
                errno,
                "fcntl(F_DUPFD_CLOEXEC)",
                format!("duplicating fd {fd}"),
            ),
        })?;
        // SAFETY: the kernel made this descriptor just now and nobody else owns it.
        let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) };
        let host_page = host_page_size()?;
        let (hugetlb, page_size) = match fstatfs(&fd) {
            Ok(fs) if fs.filesystem_type() == HUGETLBFS_MAGIC => {
                (true, u64::try_from(fs.block_size()).unwrap_or(host_page))
            }
            _ => (false, host_page),
        };
        let node = AtomicU32::new(NO_NODE);
        Ok(Self {
            kind: Arc::new(Kind::Memory {
                fd: MemoryFd::new(fd, hugetlb),
                fixed: None,
                hugetlb,
                page_size,
                node,
                mapped: AtomicU8::new(0),
            }),
            part: None,
        })
    }

    /// The file of a VFIO device, whose mappable regions are its BARs. Shares the device's
    /// descriptor: once the device is closed, everything here fails with `ERR_CLOSED`.
    pub(crate) fn from_device(device: Arc<DeviceInner>) -> Result<Self> {
        let page_size = host_page_size()?;
        Ok(Self {
            kind: Arc::new(Kind::Device { device, page_size }),
            part: None,
        })
    }

    /// Whether it is a VFIO device's file.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device().is_some()
    }

    /// The device whose file it is.
    pub(crate) fn device(&self) -> Option<&Arc<DeviceInner>> {
        match &*self.kind {
            Kind::Memory { .. } => None,
            Kind::Device { device, .. } => Some(device),
        }
    }

    /// The number of its file descriptor, which stays owned by this file. A device's is not given
    /// away: who wrote its config space through it could turn memory off that is about to be read.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a device.
    pub fn fd(&self) -> Result<RawFd> {
        match &*self.kind {
            Kind::Memory { fd, .. } => Ok(fd.as_raw_fd()),
            Kind::Device { .. } => Err(Error::new(
                ErrorCode::InvalidArgument,
                "a device keeps its file descriptor to itself",
            )),
        }
    }

    /// Its present length in bytes, asked of the kernel unless it is sealed. A device has no length of its
    /// own (its regions do): 2^64 - 1.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn length(&self) -> Result<u64> {
        match &*self.kind {
            Kind::Memory {
                fixed: Some(length),
                ..
            } => Ok(*length),
            Kind::Memory { fd, .. } => {
                let stat = fstat(fd).map_err(|errno| {
                    Error::os(ErrorCode::System, errno, "fstat", "reading a file's length")
                })?;
                Ok(u64::try_from(stat.st_size).unwrap_or(0))
            }
            Kind::Device { .. } => Ok(u64::MAX),
        }
    }

    /// Whether it has memory now, up to the byte before `end`: a file may have been truncated, a
    /// device's memory decode turned off.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    pub fn is_present(&self, end: u64) -> Result<bool> {
        match &*self.kind {
            Kind::Memory { .. } => Ok(end <= self.length()?),
            Kind::Device { device, .. } => Ok(device.is_accessible()),
        }
    }

    /// The size of its pages in bytes: what offsets, lengths and addresses must be multiples of.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        match *self.kind {
            Kind::Memory { page_size, .. } | Kind::Device { page_size, .. } => page_size,
        }
    }

    /// Whether its length is sealed, so that every page of it can always be touched. (A hole punched
    /// into it takes pages out; they come back, zero, when touched again.)
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(*self.kind, Kind::Memory { fixed: Some(_), .. })
    }

    /// Whether its pages come from the hugetlb pool.
    pub(crate) fn is_hugetlb(&self) -> bool {
        matches!(*self.kind, Kind::Memory { hugetlb: true, .. })
    }

    /// Takes the file's pages from NUMA node `node` only, where they are not allocated yet. The
    /// policy stays with the file (shared memory) or is set on each of its mappings (hugetlb).
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

    /// The node that each mapping must be bound to: only hugetlb forgets the file's policy.
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

    /// Calls `f` with the descriptor, which stays open during the call.
    pub(crate) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T> {
        match &*self.kind {
            Kind::Memory { fd, .. } => Ok(f(fd.as_fd())),
            Kind::Device { device, .. } => device.with_fd(f),
        }
    }

    /// A handle for one part of the file.
    pub(super) fn part(&self, range: Range) -> Self {
        Self {
            kind: Arc::clone(&self.kind),
            part: Some(Arc::new(range)),
        }
    }

    /// Offset of the part that this handle is for; 0 for a whole file.
    #[must_use]
    pub fn part_offset(&self) -> u64 {
        self.part.as_deref().map_or(0, Range::start)
    }

    /// The handle that the record of a file mapping must own. The kernel holds the pages of a whole file itself, but a
    /// part without an owner loses them.
    pub(crate) fn kept_part(&self) -> Option<Self> {
        self.part.is_some().then(|| self.clone())
    }

    /// Whether the kernel maps any part of it like that: it has mapped some part. Never known of devices and of files
    /// of hugetlbfs, which refuse single parts, and of files that may be sealed against writing later.
    pub(super) fn is_mappable(&self, writable: bool) -> bool {
        match &*self.kind {
            Kind::Memory {
                mapped,
                fixed: Some(_),
                hugetlb: false,
                ..
            } => mapped.load(Ordering::Relaxed) & mapped_bit(writable) != 0,
            _ => false,
        }
    }

    /// To be called when the kernel has mapped a part of it.
    pub(super) fn set_mappable(&self, writable: bool) {
        if let Kind::Memory { mapped, .. } = &*self.kind {
            mapped.fetch_or(mapped_bit(writable), Ordering::Relaxed);
        }
    }

    /// Announces a mapping of the file: a device can't be closed until what this returns is dropped.
    pub(crate) fn begin_mapping(&self) -> Result<Option<DeviceMapping>> {
        match &*self.kind {
            Kind::Memory { .. } => Ok(None),
            Kind::Device { device, .. } => device.begin_mapping().map(Some),
        }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Some(part) = self.part.take().and_then(Arc::into_inner) {
            let kind = Arc::clone(&self.kind);
            dropper::drop_memory(part.len(), UnusedPart { kind, part });
        }
    }
}

/// Part of a file without an owner: no handle, placement, IOMMU mapping or view of it is left. Its memory is released
/// when this is dropped.
struct UnusedPart {
    kind: Arc<Kind>,
    part: Range,
}

impl Drop for UnusedPart {
    fn drop(&mut self) {
        if let (Kind::Memory { fd, .. }, Ok(start), Ok(length)) = (
            &*self.kind,
            to_offset(self.part.start()),
            to_offset(self.part.len()),
        ) {
            let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // A refusal costs memory until the file goes.
            let _ = fallocate(fd, mode, start, length);
        }
    }
}

const fn mapped_bit(writable: bool) -> u8 {
    if writable { 2 } else { 1 }
}

fn bad_fd(fd: RawFd) -> Error {
    let what = format!("fd {fd} is not an open file descriptor");
    Error::os(
        ErrorCode::InvalidArgument,
        Errno::EBADF,
        "fcntl(F_DUPFD_CLOEXEC)",
        what,
    )
}
