//! Half-open ranges of 64-bit addresses, never empty and never wrapping.

use std::fmt;

use crate::{Error, ErrorCode, Result};

/// `start..end` in bytes, with `start < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// Creates the range of `length` bytes from `start`.
    ///
    /// # Errors
    /// `ERR_EMPTY_RANGE` if the length is zero, `ERR_OUT_OF_RANGE` if the end exceeds 2^64 - 1.
    pub fn new(start: u64, length: u64) -> Result<Self> {
        if length == 0 {
            return Err(Error::new(
                ErrorCode::EmptyRange,
                format!("empty range at {start:#x}"),
            ));
        }
        let end = start.checked_add(length).ok_or_else(|| {
            Error::new(
                ErrorCode::OutOfRange,
                format!("a range from {start:#x} of length {length:#x} wraps around 2^64"),
            )
        })?;
        Ok(Self { start, end })
    }

    /// Creates the range `start..end`, or returns `None` if it is empty.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        if start < end {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The first address after the range.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The length in bytes; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether every address of `other` is in this range.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Returns the intersection of both ranges.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end.min(other.end))
    }

    /// Checks that both ends are multiples of `page` (a power of two).
    ///
    /// # Errors
    /// `ERR_UNALIGNED`; the message names `subject`.
    pub fn check_aligned(&self, page: u64, subject: &str) -> Result<()> {
        check_aligned(
            self.start | self.end,
            page,
            format_args!("{subject} {self}"),
        )
    }

    /// Checks that the range ends within the first `limit` bytes.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`; the message names `subject`, which is `limit` bytes long.
    pub fn check_within(&self, limit: u64, subject: impl fmt::Display) -> Result<()> {
        if self.end <= limit {
            return Ok(());
        }
        let message = format!("{self} ends beyond {subject}, which is {limit:#x} bytes long");
        Err(Error::new(ErrorCode::OutOfRange, message))
    }
}

/// Checks that `value` is a multiple of `page` (a power of two). The error message names `subject`.
pub(crate) fn check_aligned(value: u64, page: u64, subject: impl fmt::Display) -> Result<()> {
    if value & page.wrapping_sub(1) == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::Unaligned,
        format!("{subject} is not a multiple of {page:#x}"),
    ))
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}..{:#x}", self.start, self.end)
    }
}

/// Joins each range that begins at the end of the one before it with that one.
pub(crate) fn joined(ranges: impl Iterator<Item = Range>) -> impl Iterator<Item = Range> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut joined = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start == joined.end) {
            joined.end = next.end;
        }
        Some(joined)
    })
}

/// Converts pairs of first and last address, as kernels report IOVA ranges, to sorted ranges. A range that ends at
/// 2^64 - 1 loses that address, which cannot be mapped anyway (kernels reject mappings that reach 2^64).
///
/// # Errors
/// `ERR_BAD_KERNEL_DATA`.
pub(crate) fn inclusive_ranges(pairs: impl IntoIterator<Item = (u64, u64)>) -> Result<Vec<Range>> {
    let mut ranges = Vec::new();
    for (start, last) in pairs {
        if start > last {
            let message = format!("an IOVA range from {start:#x} ends at {last:#x}");
            return Err(Error::new(ErrorCode::BadKernelData, message));
        }
        ranges.extend(Range::between(start, last.saturating_add(1)));
    }
    ranges.sort_unstable();
    Ok(ranges)
}

/// Converts `value` to a length or address of this process.
pub(crate) fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| {
        Error::new(
            ErrorCode::OutOfRange,
            format!("{value:#x} exceeds the address size"),
        )
    })
}

/// Converts `value` to a file offset (`off_t`).
pub(crate) fn to_offset(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| {
        Error::new(
            ErrorCode::OutOfRange,
            format!("file offset {value:#x} exceeds 2^63 - 1"),
        )
    })
}

/// Converts a length of this process to 64 bits; `usize` has 64 bits here (see the check in `lib.rs`).
pub(crate) const fn to_u64(value: usize) -> u64 {
    value as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rejects_empty_and_wrapping_ranges() {
        assert_eq!(Range::new(5, 0).unwrap_err().code(), ErrorCode::EmptyRange);
        assert_eq!(
            Range::new(u64::MAX, 1).unwrap_err().code(),
            ErrorCode::OutOfRange
        );
        assert_eq!(
            Range::new(1, u64::MAX).unwrap_err().code(),
            ErrorCode::OutOfRange
        );
        assert_eq!(Range::new(0, u64::MAX).unwrap().end(), u64::MAX);
        assert_eq!(
            Range::new(0x1000, 0x1000).unwrap().to_string(),
            "0x1000..0x2000"
        );
    }

    #[test]
    fn checks_alignment_and_limits() {
        let range = Range::new(0x1000, 0x800).unwrap();
        assert_eq!(
            range.check_aligned(0x1000, "it").unwrap_err().code(),
            ErrorCode::Unaligned
        );
        range.check_aligned(0x800, "it").unwrap();
        range.check_within(0x1800, "it").unwrap();
        assert_eq!(
            range.check_within(0x17ff, "it").unwrap_err().code(),
            ErrorCode::OutOfRange
        );
        assert!(
            range
                .intersection(&Range::new(0x1800, 1).unwrap())
                .is_none()
        );
    }
}
