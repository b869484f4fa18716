//! The host's page size.

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

use crate::{Error, ErrorCode, Result};

/// Checks the page size that the system reports: a power of two of at least 4096.
///
/// # Errors
/// `ERR_PAGE_SIZE`.
pub fn check_page_size(raw: i64) -> Result<u64> {
    match u64::try_from(raw) {
        Ok(size) if size.is_power_of_two() && size >= 4096 => Ok(size),
        _ => {
            let message = format!(
                "the system's page size is {raw}; expected a power of two of at least 4096"
            );
            Err(Error::new(ErrorCode::PageSize, message))
        }
    }
}

/// Returns the size of the host's base pages in bytes (`sysconf(_SC_PAGESIZE)`).
///
/// # Errors
/// `ERR_PAGE_SIZE` if the system reports none or an unsupported one.
pub fn host_page_size() -> Result<u64> {
    match sysconf(SysconfVar::PAGE_SIZE) {
        Ok(Some(raw)) => check_page_size(raw),
        Ok(None) => Err(Error::new(
            ErrorCode::PageSize,
            "the system reports no page size",
        )),
        Err(errno) => Err(page_size_error(errno)),
    }
}

fn page_size_error(errno: Errno) -> Error {
    Error::os(
        ErrorCode::PageSize,
        errno,
        "sysconf(_SC_PAGESIZE)",
        "reading the page size",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn accepts_powers_of_two_from_4096() {
        for good in [4096, 16384, 65536, 1 << 40] {
            assert_eq!(check_page_size(good).unwrap(), u64::try_from(good).unwrap());
        }
    }

    #[test]
    fn rejects_everything_else() {
        for bad in [i64::MIN, -4096, -1, 0, 1, 2048, 4095, 4097, 12288, i64::MAX] {
            assert_eq!(
                check_page_size(bad).unwrap_err().code(),
                ErrorCode::PageSize,
                "{bad}"
            );
        }
    }

    #[test]
    fn the_host_has_a_supported_page_size() {
        assert!(host_page_size().unwrap() >= 4096);
    }
}
