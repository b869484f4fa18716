//! Faulting a file's pages in without placing the file anywhere: they stay with it.

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
    /// Has the kernel allocate the pages of a part of the file, zero where they are new, from the node and of the kind that
    /// were asked for: what maps the file by itself (iommufd) heeds neither.
    ///
    /// # Errors
    /// `ERR_MEMORY_FAULT` past its end, `ERR_HUGE_PAGES_UNAVAILABLE`; `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`,
    /// `ERR_INVALID_ARGUMENT` for a device, `ERR_SYSTEM`.
    pub fn fault_in(&self, offset: u64, length: u64, transparent_huge_pages: bool) -> Result<()> {
        if self.is_device() {
            let message = "a device's memory is there, or it is not";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let range = Range::new(offset, length)?;
        check_aligned(
            offset | length,
            self.page_size(),
            format_args!("the part {range} of a file"),
        )?;
        let writable = self.is_writable()?;
        dropper::settle_before(length);
        let failed = |errno, syscall| {
            let what = format!("faulting in {range} of a file");
            Error::os(ErrorCode::System, errno, syscall, what)
        };
        let (size, at) = (to_usize(length)?, to_offset(offset)?);
        let window = self
            .with_fd(|fd| Window::new(size, protection(writable), fd, at))?
            .map_err(|errno| failed(errno, "mmap"))?;
        if transparent_huge_pages {
            // SAFETY: the window is ours. A kernel without huge pages says EINVAL: then there are none.
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
        // SAFETY: the window is ours, and stays until the call has come back.
        unsafe { populate(window.address(), &[target]) }
            .map_err(|error| error.context(format!("{range} of a file")))
    }

    /// Whether the file can be written by who has this descriptor: it was opened for it, and is not sealed against it.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn is_writable(&self) -> Result<bool> {
        let Kind::Memory { fd, fixed, .. } = &*self.kind else {
            return Ok(true);
        };
        // Made for writing, and sealed against further seals.
        if fixed.is_some() {
            return Ok(true);
        }
        let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "fcntl(F_GETFL)",
                "asking how a file was opened",
            )
        })?;
        if flags & OFlag::O_ACCMODE.bits() == OFlag::O_RDONLY.bits() {
            return Ok(false);
        }
        // EINVAL: a file that can't be sealed.
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
    fn pages_are_there_afterwards_and_zero() {
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
    fn what_is_no_part_of_it_is_refused() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(2 * page, "faulted", HugePages::None).unwrap();
        let code = |offset, length| file.fault_in(offset, length, false).unwrap_err().code();
        assert_eq!(code(0, 0), ErrorCode::EmptyRange);
        assert_eq!(code(1, page), ErrorCode::Unaligned);
        assert_eq!(code(page, 2 * page), ErrorCode::MemoryFault);
    }

    #[test]
    fn a_file_knows_whether_it_may_be_written() {
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
