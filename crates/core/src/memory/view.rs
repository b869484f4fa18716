//! Views: mapped bytes of a file, for callers that access their addresses.

use std::sync::Arc;

use nix::sys::mman::ProtFlags;

use super::MemoryFile;
use super::sys::{Window, remove};
use crate::dropper;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result};

/// Part of a file of sealed length, mapped while this exists. Its bytes stay accessible, even if the file is closed,
/// unmapped or mapped elsewhere.
#[derive(Debug)]
pub struct View {
    /// `None` only during the drop.
    mapped_part: Option<MappedPart>,
    address: usize,
    length: usize,
    /// The bytes of memory that the drop may release: those of the file, or of its part.
    memory: u64,
}

#[derive(Debug)]
struct MappedPart {
    window: Window,
    /// The part of a file; the view may be its last owner.
    part: Option<Arc<Range>>,
}

impl Drop for MappedPart {
    fn drop(&mut self) {
        if self.part.take().and_then(Arc::into_inner).is_some() {
            // SAFETY: the window is ours, and with it the part: nobody else uses either. A failure costs memory until
            // the file is closed.
            let _ = unsafe { remove(self.window.address(), self.window.length()) };
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        dropper::drop_memory(self.memory, self.mapped_part.take());
    }
}

impl View {
    #[must_use]
    pub const fn address(&self) -> usize {
        self.address
    }

    /// The length in bytes; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a view is never of nothing")]
    pub const fn len(&self) -> usize {
        self.length
    }
}

impl MemoryFile {
    /// Maps part of the file, in whole pages.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a file that can be truncated, where an access would cause a signal (all except
    /// those of [`create`](Self::create)); `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_SYSTEM`.
    pub fn view(&self, offset: u64, length: u64) -> Result<View> {
        if !self.is_fixed() {
            let message = "a file that can be truncated cannot be viewed. Copy from it instead";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let range = Range::new(offset, length)?;
        let file_length = self.length()?;
        range.check_within(file_length, "the file")?;
        if let Some(part) = self.part.as_deref().filter(|part| !part.contains(&range)) {
            let message = format!(
                "{range} is not in {part}, the part of the file that this handle refers to"
            );
            return Err(Error::new(ErrorCode::OutOfRange, message));
        }
        let page = self.page_size();
        check_aligned(offset | length, page, format_args!("the view {range}"))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let (length, offset) = (to_usize(length)?, to_offset(offset)?);
        let window = self
            .with_fd(|fd| Window::new(length, prot, fd, offset))?
            .map_err(|errno| {
                Error::os(ErrorCode::System, errno, "mmap", format!("viewing {range}"))
            })?;
        Ok(View {
            address: window.address(),
            length: window.length(),
            memory: self.part.as_deref().map_or(file_length, Range::len),
            mapped_part: Some(MappedPart {
                window,
                part: self.part.clone(),
            }),
        })
    }
}

/// A view that contains a given byte, for copies.
#[derive(Debug)]
pub struct ViewAround {
    /// The offset of the view in the file.
    pub start: u64,
    pub view: View,
}

impl MemoryFile {
    /// Maps the aligned block of `size` bytes that contains `offset`, cut at the end of the file. Returns `None` for
    /// a file whose bytes can disappear: one that is not sealed, a device's, or one of huge pages, which may lack a
    /// page on its NUMA node. Also returns `None` for a part of a file: there may be many, and the process has few
    /// mappings.
    ///
    /// # Errors
    /// As for [`view`](Self::view); `ERR_INVALID_ARGUMENT` if `size` is not a power of two, or less than a page.
    pub fn view_around(&self, offset: u64, size: u64) -> Result<Option<ViewAround>> {
        if !self.is_fixed() || self.is_hugetlb() || self.part.is_some() {
            return Ok(None);
        }
        if !size.is_power_of_two() || size < self.page_size() {
            let message =
                format!("a view of {size:#x} bytes: expected a power of two of at least a page");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let length = self.length()?;
        Range::new(offset, 1)?.check_within(length, "the file")?;
        let start = offset & !size.wrapping_sub(1);
        let end = start.saturating_add(size).min(length);
        let view = self.view(start, end.saturating_sub(start))?;
        Ok(Some(ViewAround { start, view }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::host_page_size;
    use crate::memory::HugePages;

    #[test]
    fn a_view_outlives_the_file() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(2 * page, "viewed", HugePages::None).unwrap();
        file.write(page, &[1, 2, 3]).unwrap();
        let view = file.view(page, page).unwrap();
        assert_eq!(u64::try_from(view.len()).unwrap(), page);
        drop(file);
        let first = std::ptr::with_exposed_provenance::<u8>(view.address());
        // SAFETY: mapped while the view exists, and written by nobody meanwhile.
        assert_eq!(unsafe { [first.read(), first.add(2).read()] }, [1, 3]);
    }

    #[test]
    fn a_view_around_a_byte_is_cut_to_the_file() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(5 * page, "viewed", HugePages::None).unwrap();
        let around = |offset| {
            let found = file.view_around(offset, 2 * page).unwrap().unwrap();
            (
                found.start / page,
                u64::try_from(found.view.len()).unwrap() / page,
            )
        };
        assert_eq!(around(0), (0, 2));
        assert_eq!(around(2 * page - 1), (0, 2));
        assert_eq!(around(2 * page), (2, 2));
        assert_eq!(around(5 * page - 1), (4, 1));
        let code = |offset, size| file.view_around(offset, size).unwrap_err().code();
        assert_eq!(code(5 * page, 2 * page), ErrorCode::OutOfRange);
        assert_eq!(code(u64::MAX, 2 * page), ErrorCode::OutOfRange);
        assert_eq!(code(0, 3 * page), ErrorCode::InvalidArgument);
        assert_eq!(code(0, page / 2), ErrorCode::InvalidArgument);
        assert_eq!(code(0, 0), ErrorCode::InvalidArgument);
        let other = MemoryFile::from_fd(file.fd().unwrap()).unwrap();
        assert!(other.view_around(0, page).unwrap().is_none());
        let part = crate::memory::FilePool::new("pool").take(page).unwrap();
        assert!(
            part.view_around(part.part_offset(), page)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn rejects_a_range_outside_of_a_sealed_file() {
        let page = host_page_size().unwrap();
        let file = MemoryFile::create(2 * page, "viewed", HugePages::None).unwrap();
        let code = |offset, length| file.view(offset, length).unwrap_err().code();
        assert_eq!(code(0, 0), ErrorCode::EmptyRange);
        assert_eq!(code(1, page), ErrorCode::Unaligned);
        assert_eq!(code(0, page + 1), ErrorCode::Unaligned);
        assert_eq!(code(page, 2 * page), ErrorCode::OutOfRange);
        assert_eq!(code(u64::MAX, page), ErrorCode::OutOfRange);
        let other = MemoryFile::from_fd(file.fd().unwrap()).unwrap();
        assert_eq!(
            other.view(0, page).unwrap_err().code(),
            ErrorCode::InvalidArgument
        );
    }
}
