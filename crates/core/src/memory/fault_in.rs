//! Faults in a file's pages without mapping the file in a reservation.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::mman::MmapAdvise;

use super::MemoryFile;
use super::populate::{Target, populate};
use super::sys::{self, Window, protection};
use super::{file::Kind, policy};
use crate::dropper;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result};

impl MemoryFile {
    /// Makes the kernel allocate the pages of a part of the file, from the file's node and with its kind of pages. A
    /// mapping by file (iommufd) applies neither setting. New pages are zero.
    ///
    /// # Errors
    /// `ERR_MEMORY_FAULT` past the end of the file, `ERR_HUGE_PAGES_UNAVAILABLE`; `ERR_UNALIGNED`,
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_INVALID_ARGUMENT` for a device, `ERR_SYSTEM`.
    pub fn fault_in(&self, offset: u64, length: u64, transparent_huge_pages: bool) -> Result<()> {
        if self.is_device() {
            let message = "faulting in a device's memory is not possible";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let range = Range::new(offset, length)?;
        check_aligned(
            offset | length,
            self.page_size(),
            format_args!("the part {range} of a file"),
        )?;
        let writable = self.is_writable()?;
        dropper::flush_before(length);
        let failed = |errno, syscall| {
            let operation = format!("faulting in {range} of a file");
            Error::os(ErrorCode::System, errno, syscall, operation)
        };
        let (size, at) = (to_usize(length)?, to_offset(offset)?);
        let window = self
            .with_fd(|fd| Window::new(size, protection(writable), fd, at))?
            .map_err(|errno| failed(errno, "mmap"))?;
        if transparent_huge_pages {
            // SAFETY: the window is ours. A kernel without huge pages returns EINVAL, and base pages are used.
            match unsafe { sys::advise(window.address(), size, MmapAdvise::MADV_HUGEPAGE) } {
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(failed(errno, "madvise(MADV_HUGEPAGE)")),
            }
        }
        if let Some(node) = self.mapping_node() {
            // SAFETY: the window is ours, mapped for this call.
            unsafe { policy::bind_to_node(window.address(), size, node) }?;
        }
        let target = Target {
            range: Range::new(0, length)?,
            writable,
            page_size: self.page_size(),
            hugetlb: self.is_hugetlb(),
        };
        // SAFETY: the window is ours, and stays mapped until the call returns.
        unsafe { populate(window.address(), &[target]) }
            .map_err(|error| error.context(format!("{range} of a file")))
    }

    /// Whether the file can be written through its descriptor: it is open for writing, and has no write seal.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn is_writable(&self) -> Result<bool> {
        let Kind::Memory { fd, fixed, .. } = &*self.kind else {
            return Ok(true);
        };
        // Created for writing, and sealed against further seals.
        if fixed.is_some() {
            return Ok(true);
        }
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "fcntl(F_GETFL)",
                "reading the access mode of a file",
            )
        })?;
        if flags & OFlag::O_ACCMODE.bits() == OFlag::O_RDONLY.bits() {
            return Ok(false);
        }
        // EINVAL: the file does not support seals.
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS).unwrap_or(0);
        Ok(seals & (SealFlag::F_SEAL_WRITE.bits() | F_SEAL_FUTURE_WRITE) == 0)
    }
}

/// `F_SEAL_FUTURE_WRITE` (`include/uapi/linux/fcntl.h`), which nix lacks.
const F_SEAL_FUTURE_WRITE: i32 = 0x10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::host_page_size;
    use crate::memory::HugePages;

    #[test]
    fn pages_are_present_and_zero_afterwards() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(4 * page, "faulted", HugePages::None).unwrap();
        file.write(page, &[7]).unwrap();
        for huge in [false, true] {
            file.fault_in(page, 2 * page, huge).unwrap();
        }
        let blocks = file
            .with_fd(|fd| nix::sys::stat::fstat(fd).unwrap().st_blocks)
            .unwrap();
        assert!(u64::try_from(blocks).unwrap() * 512 >= 2 * page);
        let mut bytes = [1; 2];
        file.read(page, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0]);
    }

    #[test]
    fn rejects_a_range_outside_of_the_file() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(2 * page, "faulted", HugePages::None).unwrap();
        let code = |offset, length| file.fault_in(offset, length, false).unwrap_err().code();
        assert_eq!(code(0, 0), ErrorCode::EmptyRange);
        assert_eq!(code(1, page), ErrorCode::Unaligned);
        assert_eq!(code(page, 2 * page), ErrorCode::MemoryFault);
    }

    #[test]
    fn reports_whether_a_file_can_be_written() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(page, "written", HugePages::None).unwrap();
        assert!(file.is_writable().unwrap());
        let seal = |seal| file.with_fd(|fd| fcntl(fd, FcntlArg::F_ADD_SEALS(seal)));
        assert_eq!(seal(SealFlag::F_SEAL_WRITE).unwrap(), Err(Errno::EPERM));
        let path = format!("/proc/self/fd/{}", file.fd().unwrap());
        let reading = std::fs::File::open(path).unwrap();
        let read_only = MemoryFile::from_fd(reading.as_raw_fd()).unwrap();
        assert!(!read_only.is_writable().unwrap());
        let flags = nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
        let sealed = nix::sys::memfd::memfd_create("sealed", flags).unwrap();
        fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
        let sealed = MemoryFile::from_fd(sealed.as_raw_fd()).unwrap();
        assert!(!sealed.is_writable().unwrap());
    }
}
