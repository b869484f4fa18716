//! Sizes of the dirty-page bitmaps that kernels fill in.

use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

/// The largest bitmap that type1 accepts, in pages: 256 MiB, or 8 TiB of 4 KiB pages. The kernel's name is
/// `DIRTY_BITMAP_SIZE_MAX` (`drivers/vfio/vfio_iommu_type1.c`). It limits the allocation for iommufd too.
const MAX_PAGES: u64 = i32::MAX as u64;

/// Returns the number of 64-bit words that hold one bit for each page of `range`.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` if the page size is not a power of two, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE` if the range
/// has more pages than a bitmap can have.
pub(crate) fn words_of(range: &Range, page_size: u64) -> Result<usize> {
    if !page_size.is_power_of_two() {
        let message = format!("the page size {page_size} is not a power of two");
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    range.check_aligned(page_size, "IOVA")?;
    let pages = range.len() >> page_size.trailing_zeros();
    if pages > MAX_PAGES {
        let message = format!(
            "{range} has {pages} pages of {page_size} bytes, a bitmap at most {MAX_PAGES}. Ask for parts of it"
        );
        return Err(Error::new(ErrorCode::OutOfRange, message));
    }
    to_usize(pages.div_ceil(64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_words_that_have_a_bit_for_each_page() {
        let words = |start, length, page| words_of(&Range::new(start, length).unwrap(), page);
        assert_eq!(words(0, 4096, 4096).unwrap(), 1);
        assert_eq!(words(0x8000, 64 * 4096, 4096).unwrap(), 1);
        assert_eq!(words(0, 65 * 4096, 4096).unwrap(), 2);
        assert_eq!(words(0, MAX_PAGES << 21, 1 << 21).unwrap(), 1 << 25);
    }

    #[test]
    fn rejects_a_bitmap_larger_than_the_kernel_accepts() {
        let code = |length, page| {
            let range = Range::new(0, length).unwrap();
            words_of(&range, page).unwrap_err().code()
        };
        assert_eq!(code(1 << 63, 1), ErrorCode::OutOfRange);
        assert_eq!(code(1 << 63, 4096), ErrorCode::OutOfRange);
        assert_eq!(code((MAX_PAGES + 1) << 12, 4096), ErrorCode::OutOfRange);
        assert_eq!(code(4096, 0), ErrorCode::InvalidArgument);
        assert_eq!(code(3 * 4096, 3), ErrorCode::InvalidArgument);
        assert_eq!(code(4096, 8192), ErrorCode::Unaligned);
    }
}
