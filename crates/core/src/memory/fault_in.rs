//! Faults in the pages of a file or of private memory without mapping them in a reservation.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::mman::MmapAdvise;

use super::populate::{self, Target};
use super::sys::{self, Window, protection};
use super::{MemoryFile, PrivateMemory};
use super::{file::Kind, policy};
use crate::dropper;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result};

impl MemoryFile {
    /// Allocates the missing pages of a part of the file, from its node and with its kind of pages.
    ///
    /// A mapping by file (iommufd) applies neither setting. New pages are zero. Uses several threads if much is
    /// missing.
    ///
    /// # Errors
    /// `ERR_MEMORY_FAULT` past the end of the file, `ERR_HUGE_PAGES_UNAVAILABLE`; `ERR_UNALIGNED`,
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_INVALID_ARGUMENT` for a device, `ERR_SYSTEM`.
    pub fn fault_in(&self, offset: u64, length: u64, transparent_huge_pages: bool) -> Result<()> {
        self.fault_in_by(populate::threads, offset, length, transparent_huge_pages)
    }

    /// As [`fault_in`](Self::fault_in), where `threads` returns the number for so many missing bytes.
    pub(crate) fn fault_in_by(
        &self,
        threads: impl Fn(u64) -> usize,
        offset: u64,
        length: u64,
        transparent_huge_pages: bool,
    ) -> Result<()> {
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
        let missing = self.missing(&range);
        if missing.is_empty() {
            return Ok(());
        }
        let writable = self.is_writable()?;
        let failed = |errno, syscall| {
            let operation = format!("faulting in {range} of a file");
            Error::os(ErrorCode::System, errno, syscall, operation)
        };
        // The window has the whole part, so that a huge page can extend beyond what is missing.
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
        let target = |part: Range| {
            Ok(Target {
                range: Range::new(part.start().saturating_sub(offset), part.len())?,
                writable,
                page_size: self.page_size(),
                hugetlb: self.is_hugetlb(),
            })
        };
        let targets = missing
            .into_iter()
            .map(target)
            .collect::<Result<Vec<_>>>()?;
        let bytes = populate::bytes(&targets);
        dropper::flush_before(bytes);
        // SAFETY: the window is ours, and stays mapped until the call returns.
        unsafe { populate::populate_by(threads(bytes), window.address(), &targets) }
            .map_err(|error| error.context(format!("{range} of a file")))
    }

    /// Returns the parts of `range` that may lack pages: all of it if the kernel does not report that.
    fn missing(&self, range: &Range) -> Vec<Range> {
        self.pages()
            .map_or_else(|| vec![*range], |pages| pages.missing(range))
    }

    /// Whether the file is open for writing, and has no write seal.
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

impl PrivateMemory {
    /// Allocates the missing pages of a part of the memory, which must not be mapped in a reservation.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` if some of it is mapped; `ERR_MEMORY_FAULT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`,
    /// `ERR_EMPTY_RANGE`, `ERR_SYSTEM`.
    pub fn fault_in(&self, offset: u64, length: u64) -> Result<()> {
        let range = Range::new(offset, length)?;
        range.check_aligned(self.page_size(), "private memory")?;
        range.check_within(self.length(), "the private memory")?;
        dropper::flush_before(length);
        self.for_each_unplaced(&range, |address, part| {
            let target = Target {
                range: Range::new(0, part.len())?,
                writable: true,
                page_size: self.page_size(),
                hugetlb: false,
            };
            // SAFETY: the part is at its origin, which is ours, and its lock is held: it stays there.
            unsafe { populate::populate(address, &[target]) }
                .map_err(|error| error.context(format!("{part} of private memory")))
        })
    }
}

/// `F_SEAL_FUTURE_WRITE` (`include/uapi/linux/fcntl.h`), which nix lacks.
const F_SEAL_FUTURE_WRITE: i32 = 0x10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use nix::unistd::{Whence, lseek};

    use super::*;
    use crate::host_page_size;
    use crate::memory::{AddressSpaceReservation, HugePages};

    #[test]
    fn pages_are_present_and_zero_afterwards() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(4 * page, "faulted", HugePages::None).unwrap();
        file.write(page, &[7]).unwrap();
        for huge in [false, true] {
            file.fault_in(page, 2 * page, huge).unwrap();
        }
        assert!(present(&file) >= 2 * page);
        let mut bytes = [1; 2];
        file.read(page, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0]);
    }

    #[test]
    fn private_memory_is_faulted_in_where_it_is_not_mapped() {
        let page = host_page_size().unwrap();
        let memory = PrivateMemory::new(4 * page, false).unwrap();
        memory.write(page, &[7]).unwrap();
        memory.fault_in(0, 4 * page).unwrap();
        let mut bytes = [1; 2];
        memory.read(page, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 0]);
        let reservation = AddressSpaceReservation::new(32).unwrap();
        reservation.map_private(0, page, &memory, 2 * page).unwrap();
        let error = memory.fault_in(0, 4 * page).unwrap_err();
        assert_eq!(error.code(), ErrorCode::VaInUse);
    }

    const MIB: u64 = 1 << 20;

    fn present(file: &MemoryFile) -> u64 {
        let blocks = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap().st_blocks);
        u64::try_from(blocks.unwrap()).unwrap() * 512
    }

    #[test]
    fn several_threads_fault_in_only_what_is_missing() {
        let file = MemoryFile::create(80 * MIB, "parts", HugePages::None).unwrap();
        file.fault_in(20 * MIB, 4 * MIB, false).unwrap();
        file.write(50 * MIB, &[7]).unwrap();
        file.with_fd(|fd| lseek(fd, 123, Whence::SeekSet))
            .unwrap()
            .unwrap();
        let counted = std::cell::RefCell::new(Vec::new());
        let threads = |bytes| {
            counted.borrow_mut().push(bytes);
            4
        };
        let fault_in = || {
            file.fault_in_by(threads, 10 * MIB, 70 * MIB, false)
                .unwrap()
        };
        fault_in();
        assert_eq!(*counted.borrow(), [66 * MIB - 4096]);
        assert_eq!(present(&file), 70 * MIB);
        fault_in();
        assert_eq!(counted.borrow().len(), 1, "everything is present");
        let mut byte = [0];
        file.read(50 * MIB, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        let position = file.with_fd(|fd| lseek(fd, 0, Whence::SeekCur)).unwrap();
        assert_eq!(position, Ok(123), "the caller may use it");
    }

    #[test]
    fn faults_in_a_file_that_is_open_for_reading() {
        let file = MemoryFile::create(4 * MIB, "read", HugePages::None).unwrap();
        let path = format!("/proc/self/fd/{}", file.fd().unwrap());
        let reading = File::open(path).unwrap();
        let read_only = MemoryFile::from_fd(reading.as_raw_fd()).unwrap();
        read_only.fault_in_by(|_| 4, 0, 4 * MIB, false).unwrap();
        assert_eq!(present(&file), 4 * MIB);
    }

    #[test]
    fn the_end_of_a_file_need_not_be_aligned() {
        let page = host_page_size().unwrap();
        let fd = nix::sys::memfd::memfd_create("end", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let file = MemoryFile::from_fd(fd.as_raw_fd()).unwrap();
        nix::unistd::ftruncate(&fd, to_offset(page + 1).unwrap()).unwrap();
        for _ in 0..2 {
            file.fault_in(0, 2 * page, false).unwrap();
        }
        let part = Range::new(0, 2 * page).unwrap();
        assert_eq!(file.missing(&part), []);
        let beyond = file.fault_in(0, 4 * page, false).unwrap_err();
        assert_eq!(beyond.code(), ErrorCode::MemoryFault);
        // One search for each step of so many bytes would take hours.
        let whole = Range::new(0, 1 << 62).unwrap();
        let end = file.missing(&whole).pop().unwrap().end();
        assert_eq!(end, whole.end());
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
