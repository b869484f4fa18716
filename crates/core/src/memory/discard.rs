//! Discards the bytes of a part of a file or of private memory, which reads as zeros then.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::file::MemoryFile;
use super::private::PrivateMemory;
use super::sys;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result};

/// Releases the pages of a part of a file of shared memory, which keeps its length.
pub(super) fn punch_hole(fd: impl AsFd, range: &Range) -> nix::Result<()> {
    let (Ok(start), Ok(length)) = (to_offset(range.start()), to_offset(range.len())) else {
        return Err(Errno::EOVERFLOW);
    };
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(fd, mode, start, length)
}

impl MemoryFile {
    /// Discards the bytes of a part of the file. A device that the kernel has pinned pages for keeps these pages: the
    /// caller unmaps the part first.
    ///
    /// # Errors
    /// `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`; `ERR_INVALID_ARGUMENT` for a device; `ERR_SYSTEM`
    /// (`EPERM`: the file has a write seal; `EOPNOTSUPP`: its file system has no holes).
    pub fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let range = Range::new(offset, length)?;
        if self.is_device() {
            let message = format!("{range} of a device's memory cannot be discarded");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let part = || format!("{range} of a file");
        check_aligned(
            offset | length,
            self.page_size(),
            format_args!("{}", part()),
        )?;
        range.check_within(self.length()?, "the file")?;
        self.with_fd(|fd| punch_hole(fd, &range))?.map_err(|errno| {
            let operation = format!("discarding {}", part());
            Error::os(ErrorCode::System, errno, "fallocate", operation)
        })
    }
}

impl PrivateMemory {
    /// Discards the bytes of a part of the memory, which must not be mapped in a reservation.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` if some of it is mapped, after parts before it may be discarded; `ERR_UNALIGNED`,
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_SYSTEM`.
    pub fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let range = Range::new(offset, length)?;
        range.check_aligned(self.page_size(), "private memory")?;
        range.check_within(self.length(), "the private memory")?;
        self.for_each_unplaced(&range, |address, part| {
            // SAFETY: the part is at its origin, which is ours, and its lock is held: nobody relies on its bytes.
            unsafe { sys::discard(address, to_usize(part.len())?) }.map_err(|errno| {
                let operation = format!("discarding {part} of private memory");
                Error::os(
                    ErrorCode::System,
                    errno,
                    "madvise(MADV_DONTNEED)",
                    operation,
                )
            })
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory::{AddressSpaceReservation, HugePages};

    const PAGE: u64 = 4096;

    #[test]
    fn a_discarded_part_of_a_file_has_no_pages_and_reads_as_zeros() {
        let file = MemoryFile::create(4 * PAGE, "discarded", HugePages::None).unwrap();
        for page in 0..4 {
            file.write(page * PAGE, &[7]).unwrap();
        }
        file.discard(PAGE, 2 * PAGE).unwrap();
        let blocks = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap().st_blocks);
        assert_eq!(blocks.unwrap() * 512, 2 * 4096);
        let first = |page: u64| {
            let mut byte = [1];
            file.read(page * PAGE, &mut byte).unwrap();
            byte[0]
        };
        assert_eq!([0, 1, 2, 3].map(first), [7, 0, 0, 7]);
    }

    #[test]
    fn a_discarded_part_of_private_memory_reads_as_zeros() {
        let memory = PrivateMemory::new(4 * PAGE, false).unwrap();
        memory.write(0, [7_u8; 4 * 4096].as_slice()).unwrap();
        memory.discard(PAGE, 2 * PAGE).unwrap();
        let first = |page: u64| {
            let mut byte = [1];
            memory.read(page * PAGE, &mut byte).unwrap();
            byte[0]
        };
        assert_eq!([0, 1, 2, 3].map(first), [7, 0, 0, 7]);
    }

    #[test]
    fn locked_private_memory_is_discarded() {
        let memory = PrivateMemory::new(2 * PAGE, false).unwrap();
        memory.write(0, &[7]).unwrap();
        let range = Range::new(0, PAGE).unwrap();
        memory
            .for_each_unplaced(&range, |address, _| {
                // SAFETY: locking pages does not change their bytes.
                let status = unsafe { libc::mlock(address as *const libc::c_void, 4096) };
                assert_eq!(status, 0);
                Ok(())
            })
            .unwrap();
        memory.discard(0, PAGE).unwrap();
        let mut byte = [1];
        memory.read(0, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn private_memory_that_is_mapped_keeps_its_bytes() {
        let reservation = AddressSpaceReservation::new(32).unwrap();
        let memory = PrivateMemory::new(4 * PAGE, false).unwrap();
        memory.write(2 * PAGE, &[7]).unwrap();
        reservation.map_private(0, PAGE, &memory, 2 * PAGE).unwrap();
        let error = memory.discard(0, 4 * PAGE).unwrap_err();
        assert_eq!(error.code(), ErrorCode::VaInUse);
        reservation.unmap(0, PAGE).unwrap();
        let mut byte = [1];
        memory.read(2 * PAGE, &mut byte).unwrap();
        assert_eq!(byte, [7]);
        memory.discard(0, 4 * PAGE).unwrap();
        memory.read(2 * PAGE, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn rejects_parts_of_pages_and_what_is_past_the_end() {
        let file = MemoryFile::create(2 * PAGE, "small", HugePages::None).unwrap();
        let memory = PrivateMemory::new(2 * PAGE, false).unwrap();
        for (offset, length, code) in [
            (1, PAGE, ErrorCode::Unaligned),
            (0, 0, ErrorCode::EmptyRange),
            (PAGE, 2 * PAGE, ErrorCode::OutOfRange),
            (u64::MAX - PAGE + 1, PAGE, ErrorCode::OutOfRange),
        ] {
            for result in [file.discard(offset, length), memory.discard(offset, length)] {
                assert_eq!(
                    result.unwrap_err().code(),
                    code,
                    "{length:#x} at {offset:#x}"
                );
            }
        }
    }
}
