//! Huge pages from the hugetlb pool.

use nix::errno::Errno;

use crate::{Error, ErrorCode, Result};

/// The page size of a new memory file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// The host's base pages (the kernel can still use transparent huge pages).
    None,
    /// 2 MiB pages from hugetlb.
    Size2M,
    /// 1 GiB pages from hugetlb.
    Size1G,
}

impl HugePages {
    /// Converts the base-2 logarithm of the page size: 0 for none, 21 or 30.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for any other value.
    pub fn from_shift(shift: u32) -> Result<Self> {
        match shift {
            0 => Ok(Self::None),
            21 => Ok(Self::Size2M),
            30 => Ok(Self::Size1G),
            _ => {
                let message =
                    format!("no huge pages of 2^{shift} bytes; expected 0 (none), 21 or 30");
                Err(Error::new(ErrorCode::InvalidArgument, message))
            }
        }
    }
}

/// Returns the error code of a failed hugetlb allocation. No page is free, or the system lacks the size.
pub(crate) fn huge_page_code(errno: Errno) -> ErrorCode {
    match errno {
        Errno::ENOMEM | Errno::ENOSPC | Errno::ENODEV => ErrorCode::HugePagesUnavailable,
        _ => ErrorCode::System,
    }
}
