//! A descriptor that this process owns, of any file.

use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::{Error, ErrorCode, Result};

/// An open descriptor, which is closed when it is dropped.
#[derive(Debug)]
pub struct Descriptor {
    fd: OwnedFd,
}

impl Descriptor {
    /// Duplicates a descriptor (`F_DUPFD_CLOEXEC`); the caller still owns the given one.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not open; `ERR_SYSTEM`: too many open files.
    pub fn duplicate(fd: RawFd) -> Result<Self> {
        // SAFETY: F_DUPFD_CLOEXEC changes no memory, and the kernel checks the number.
        let result = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        let copy = Errno::result(result).map_err(|errno| {
            let code = match errno {
                Errno::EBADF => ErrorCode::InvalidArgument,
                _ => ErrorCode::System,
            };
            let operation = format!("duplicating descriptor {fd}");
            Error::os(code, errno, "fcntl(F_DUPFD_CLOEXEC)", operation)
        })?;
        // SAFETY: the call created the descriptor, which has no other owner.
        Ok(Self::new(unsafe { OwnedFd::from_raw_fd(copy) }))
    }

    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Returns the number of the descriptor, which is still owned.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Returns the name of its file in `/proc`, if `/proc` is mounted: a path, or `anon_inode:[eventfd]`.
    pub(crate) fn file_name(&self) -> Option<String> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", self.raw_fd())).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// Checks that it is an anonymous file of a kind, such as `eventfd`. Without `/proc`, any anonymous file passes.
    pub(crate) fn require_anonymous(&self, kind: &str) -> Result<()> {
        let mode = fstat(self).map_or(u32::MAX, |stat| stat.st_mode);
        let is_anonymous = mode & SFlag::S_IFMT.bits() == 0;
        let name = self.file_name();
        if is_anonymous && name.is_none_or(|name| name == format!("anon_inode:[{kind}]")) {
            return Ok(());
        }
        Err(self.is_not(format_args!("an {kind}")))
    }

    /// Returns the error for a descriptor of another file than expected.
    pub(crate) fn is_not(&self, expected: impl Display) -> Error {
        let name = self.file_name();
        let name = name.as_deref().unwrap_or("another file");
        let message = format!("the descriptor is {name}, not {expected}");
        Error::new(ErrorCode::InvalidArgument, message)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Descriptor> for OwnedFd {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.fd
    }
}
