//! Creates memory files, and opens files of the caller.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::ProtFlags;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;

use super::file::{Kind, MemoryFile, NO_NODE};
use super::huge::{HugePages, huge_page_code};
use super::memory_fd::MemoryFd;
use super::sys::Window;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::vfio::DeviceInner;
use crate::{Descriptor, Error, ErrorCode, Range, Result, host_page_size};

impl MemoryFile {
    /// Creates an anonymous file of `length` zero bytes (`memfd_create`). Its length is sealed: the file cannot
    /// shrink or grow, so no mapping can exceed its end. Huge pages are reserved here, so that accessing them cannot
    /// fail later.
    ///
    /// # Errors
    /// `ERR_EMPTY_RANGE`, `ERR_UNALIGNED` (`length` is not a multiple of the page size), `ERR_OUT_OF_RANGE` (beyond
    /// 2^63 - 1), `ERR_INVALID_ARGUMENT` (a name with NUL or over 249 bytes), `ERR_HUGE_PAGES_UNAVAILABLE`,
    /// `ERR_SYSTEM`.
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
        let operation = || format!("creating memory file '{name}' of {length:#x} bytes");
        let code = |errno| {
            if hugetlb {
                huge_page_code(errno)
            } else {
                ErrorCode::System
            }
        };
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | huge_flags;
        let fd = memfd_create(name, flags)
            .map_err(|errno| Error::os(code(errno), errno, "memfd_create", operation()))?;
        ftruncate(&fd, size)
            .map_err(|errno| Error::os(code(errno), errno, "ftruncate", operation()))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| {
            Error::os(ErrorCode::System, errno, "fcntl(F_ADD_SEALS)", operation())
        })?;
        if hugetlb {
            // A shared mapping of hugetlb reserves its pages, and the file keeps the reservation.
            Window::new(to_usize(length)?, ProtFlags::PROT_READ, fd.as_fd(), 0)
                .map_err(|errno| Error::os(huge_page_code(errno), errno, "mmap", operation()))?
                .unmap_untouched();
        }
        Ok(Self::of_memory(fd, Some(length), hugetlb, page_size))
    }

    /// Opens a file of the caller: memfd, hugetlbfs, shared memory or a regular file. The descriptor is duplicated
    /// (`F_DUPFD_CLOEXEC`); the caller still owns its own.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if `fd` is not open (`EBADF`), `ERR_SYSTEM`.
    pub fn from_fd(fd: RawFd) -> Result<Self> {
        let fd = OwnedFd::from(Descriptor::duplicate(fd)?);
        let host_page = host_page_size()?;
        let (hugetlb, page_size) = match fstatfs(&fd) {
            Ok(fs) if fs.filesystem_type() == HUGETLBFS_MAGIC => {
                (true, u64::try_from(fs.block_size()).unwrap_or(host_page))
            }
            _ => (false, host_page),
        };
        Ok(Self::of_memory(fd, None, hugetlb, page_size))
    }

    fn of_memory(fd: OwnedFd, fixed: Option<u64>, hugetlb: bool, page_size: u64) -> Self {
        Self {
            kind: Arc::new(Kind::Memory {
                fd: MemoryFd::new(fd, hugetlb),
                fixed,
                hugetlb,
                page_size,
                node: AtomicU32::new(NO_NODE),
                mapped: AtomicU8::new(0),
                is_shared_with_caller: AtomicBool::new(false),
            }),
            part: None,
        }
    }

    /// Returns the file of a VFIO device, whose mappable regions are its BARs. Shares the device's descriptor: after
    /// the device is closed, every operation fails with `ERR_CLOSED`.
    pub(crate) fn from_device(device: Arc<DeviceInner>) -> Result<Self> {
        let page_size = host_page_size()?;
        Ok(Self {
            kind: Arc::new(Kind::Device { device, page_size }),
            part: None,
        })
    }
}
