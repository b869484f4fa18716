//! Maps parts of files in a reservation.

use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use super::extent::{Extent, ExtentSource};
use super::file::MemoryFile;
use super::huge::huge_page_code;
use super::pacer::Pacer;
use super::place::check_free;
use super::placed_file::PlacedFile;
use super::reservation::AddressSpaceReservation;
use super::sys::Window;
use super::{budget, policy, sys};
use crate::range::{check_aligned, to_offset};
use crate::{Error, ErrorCode, Range, Result};

/// Part of a file, to map in a reservation.
#[derive(Debug, Clone, Copy)]
pub struct FilePart {
    /// The offset in the reservation, in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub length: u64,
    /// The offset in the file, in bytes.
    pub file_offset: u64,
    /// The index of the file among those of the call.
    pub file: u32,
    /// Whether this process can write the mapping.
    pub writable: bool,
    /// Whether to request transparent huge pages (`MADV_HUGEPAGE`), if the kernel supports them.
    pub transparent_huge: bool,
}

impl FilePart {
    /// Whether one kernel mapping can contain this part of an ordinary file and then `next`.
    fn continues(&self, next: &Self) -> bool {
        self.file == next.file
            && self.offset.checked_add(self.length) == Some(next.offset)
            && self.file_offset.checked_add(self.length) == Some(next.file_offset)
            && (self.writable, self.transparent_huge) == (next.writable, next.transparent_huge)
    }
}

impl AddressSpaceReservation {
    /// Maps `length` bytes of `file` from `file_offset` at `offset`, shared, where nothing may be mapped. All three
    /// are multiples of the file's page size. `transparent_huge` requests huge pages (`MADV_HUGEPAGE`), if the kernel
    /// supports them.
    ///
    /// # Errors
    /// `ERR_OVERLAP`, `ERR_VA_IN_USE` (a lease holds the range), `ERR_OUT_OF_RANGE` (beyond the reservation or the
    /// file), `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`, `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_MAPPING_LIMIT`,
    /// `ERR_SYSTEM` (`EACCES`: the descriptor is read-only; `EINVAL`: that part of a device cannot be mapped).
    pub fn map_file(
        &self,
        offset: u64,
        length: u64,
        file: &MemoryFile,
        file_offset: u64,
        writable: bool,
        transparent_huge: bool,
    ) -> Result<()> {
        let part = FilePart {
            offset,
            length,
            file_offset,
            file: 0,
            writable,
            transparent_huge,
        };
        self.map_files(std::slice::from_ref(file), &[part])
            .map_err(|(_, error)| error)
    }

    /// Maps parts of files, one after another. Contiguous parts become one kernel mapping.
    ///
    /// # Errors
    /// As [`map_file`](Self::map_file), with the index of the part that failed; the parts before it are mapped.
    /// `ERR_INVALID_ARGUMENT` if a part names a file that the call does not have.
    pub fn map_files(
        &self,
        files: &[MemoryFile],
        parts: &[FilePart],
    ) -> Result<(), (usize, Error)> {
        let mut pacer = Pacer::new();
        let mut rest = parts;
        while let Some(first) = rest.first() {
            let index = parts.len().saturating_sub(rest.len());
            let file = usize::try_from(first.file)
                .ok()
                .and_then(|index| files.get(index));
            let file = file.ok_or_else(|| {
                let message = format!("the call has no file {}", first.file);
                (index, Error::new(ErrorCode::InvalidArgument, message))
            })?;
            // Each part of a device or hugetlb file is mapped by itself: the kernel may accept one and reject
            // another.
            let more = if file.is_device() || file.is_hugetlb() {
                0
            } else {
                let pairs = rest.iter().zip(rest.iter().skip(1));
                pairs.take_while(|(one, next)| one.continues(next)).count()
            };
            let (run, after) = rest.split_at(more.saturating_add(1));
            self.map_run(file, run).map_err(|error| (index, error))?;
            rest = after;
            pacer.pace();
        }
        Ok(())
    }

    /// Maps parts that become one kernel mapping.
    fn map_run(&self, file: &MemoryFile, run: &[FilePart]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let FilePart {
            file_offset,
            writable,
            transparent_huge,
            ..
        } = first;
        let page = file.page_size();
        for one in run {
            let range = self.inner.check(one.offset, one.length)?;
            range.check_aligned(page, "range")?;
        }
        let end = self.inner.check(last.offset, last.length)?.end();
        let range = Range::new(first.offset, end.saturating_sub(first.offset))?;
        let part = Range::new(*file_offset, range.len())?;
        check_aligned(
            *file_offset,
            page,
            format_args!("file offset {file_offset:#x}"),
        )?;
        part.check_within(file.length()?, "the file")?;
        let kernel_offset = to_offset(*file_offset)?;
        let placed = Arc::new(PlacedFile::new(file)?);
        let mut state = self.inner.open_state()?;
        check_free(&state, &range)?;
        let cost = state.extents.cost_of_placing(&range, &self.inner.whole()?);
        budget::charge(cost).map_err(|error| error.context(format_args!("mapping {range}")))?;
        let (at, size) = self.inner.locate(&range)?;
        let prot = sys::protection(*writable);
        let operation = || format!("mapping {part} of a file at {range}");
        let failed = |errno| {
            let code = match errno {
                Errno::ENOMEM if file.is_hugetlb() => huge_page_code(errno),
                _ => ErrorCode::System,
            };
            Error::os(code, errno, "mmap", operation())
        };
        let mapped = file.with_fd(|fd| {
            // A trial mapping elsewhere: if the kernel rejects the file, it does so here, where a failure leaves no
            // hole in the reservation (MAP_FIXED removes the old mapping before it checks the file).
            if !file.is_mappable(*writable) {
                Window::new(size, prot, fd, kernel_offset)?.unmap_untouched();
            }
            // SAFETY: the range is ours, the lock is held, and nothing is mapped there.
            unsafe { sys::map_file_at(at, size, prot, fd, kernel_offset) }
        })?;
        if let Err(errno) = mapped {
            // SAFETY: the range is ours.
            unsafe { sys::refill(at, size, ProtFlags::PROT_NONE) };
            return Err(failed(errno));
        }
        file.set_mappable(*writable);
        if let Some(node) = file.mapping_node() {
            // SAFETY: mapped just now, ours.
            if let Err(error) = unsafe { policy::bind_to_node(at, size, node) } {
                let _ = self.inner.give_back(&range);
                return Err(error.context(operation()));
            }
        }
        if *transparent_huge {
            // SAFETY: mapped just now, ours. Only advice; a kernel without huge pages returns EINVAL.
            let _ = unsafe { sys::advise(at, size, MmapAdvise::MADV_HUGEPAGE) };
        }
        state.extents.insert(Extent {
            range,
            source: ExtentSource::File(placed, *file_offset),
            writable: *writable,
            present: false,
            leases: 0,
        });
        Ok(())
    }
}
