//! Bytes of a file, mapped for somebody who gets to their address.

use std::sync::Arc;

use nix::sys::mman::ProtFlags;

use super::MemoryFile;
use super::sys::{Window, remove};
use crate::dropper;
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result};

/// Part of a file whose length is sealed, mapped on its own for as long as this lives: no byte of it can stop being there,
/// whoever closes, unmaps or places the file elsewhere.
#[derive(Debug)]
pub struct View {
    /// `None` only during the drop.
    shown: Option<Shown>,
    address: usize,
    length: usize,
    /// Bytes of memory that may be released with it: those of the file, or of its part.
    memory: u64,
}

#[derive(Debug)]
struct Shown {
    window: Window,
    /// The part of a file, whose last owner the view may be.
    part: Option<Arc<Range>>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.part.take().and_then(Arc::into_inner).is_some() {
            // SAFETY: the window is ours, and with it the part: nobody else uses either any more. A refusal costs
            // memory until the file goes.
            let _ = unsafe { remove(self.window.address(), self.window.length()) };
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        dropper::drop_memory(self.memory, self.shown.take());
    }
}

impl View {
    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.address
    }

    /// In bytes; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a view is never of nothing")]
    pub const fn len(&self) -> usize {
        self.length
    }
}

impl MemoryFile {
    /// Maps part of the file, in whole pages of it.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a file that might be cut short, so that touching it would be a signal (all but those of
    /// [`create`](Self::create)); `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_SYSTEM`.
    pub fn view(&self, offset: u64, length: u64) -> Result<View> {
        if !self.is_fixed() {
            let message = "a file that somebody may cut short can't be viewed: only copied from";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let range = Range::new(offset, length)?;
        let file_length = self.length()?;
        range.check_within(file_length, "the file")?;
        if let Some(part) = self.part.as_deref().filter(|part| !part.contains(&range)) {
            let message =
                format!("{range} is not in {part}, the part of the file that this handle is for");
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
            shown: Some(Shown {
                window,
                part: self.part.clone(),
            }),
        })
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
        // SAFETY: mapped for as long as the view lives, and written by nobody meanwhile.
        assert_eq!(unsafe { [first.read(), first.add(2).read()] }, [1, 3]);
    }

    #[test]
    fn what_is_no_part_of_a_sealed_file_is_refused() {
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
