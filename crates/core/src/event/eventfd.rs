//! An eventfd: a counter in the kernel, to which every owner of the descriptor can add.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};

use crate::{Descriptor, Error, ErrorCode, Result};

/// A counter of events. Clones share it; the kernel (an interrupt, an irqfd) holds its own reference.
#[derive(Debug, Clone)]
pub struct EventFd {
    descriptor: Arc<Counter>,
}

impl EventFd {
    /// Creates an eventfd with count 0. It never blocks, and is closed on exec.
    ///
    /// # Errors
    /// `ERR_SYSTEM`: too many open files.
    pub fn new() -> Result<Self> {
        Counter::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|descriptor| Self {
                descriptor: Arc::new(descriptor),
            })
            .map_err(|errno| failed(errno, "eventfd2", "creating an event descriptor"))
    }

    /// Duplicates the descriptor of an eventfd; the caller still owns the given one. Makes the eventfd non-blocking
    /// for all of its owners (`O_NONBLOCK`).
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not the descriptor of an eventfd; `ERR_SYSTEM`.
    pub fn from_fd(fd: RawFd) -> Result<Self> {
        let copy = Descriptor::duplicate(fd)?;
        copy.require_anonymous("eventfd")?;
        let operation = "making an event descriptor non-blocking";
        let failed = |errno| failed(errno, "fcntl(F_SETFL)", operation);
        let flags = fcntl(&copy, FcntlArg::F_GETFL).map_err(failed)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&copy, FcntlArg::F_SETFL(flags)).map_err(failed)?;
        // SAFETY: the descriptor is that of an eventfd, and owned.
        let counter = unsafe { Counter::from_owned_fd(OwnedFd::from(copy)) };
        Ok(Self {
            descriptor: Arc::new(counter),
        })
    }

    /// Returns the number of the descriptor, which the eventfd still owns.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Adds to the count.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` if the count would exceed 2^64 - 2; it does not change then.
    pub fn signal(&self, count: u64) -> Result<()> {
        // The kernel rejects the largest number with an errno that does not mean a full count.
        if count == u64::MAX {
            return Err(full(count));
        }
        loop {
            return match self.descriptor.write(count) {
                Ok(_) => Ok(()),
                Err(Errno::EAGAIN) => Err(full(count)),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(failed(errno, "write", "signalling an event")),
            };
        }
    }

    /// Returns the count, and sets it to 0.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an errno that an eventfd does not return.
    pub fn take(&self) -> Result<u64> {
        loop {
            return match self.descriptor.read() {
                Ok(count) => Ok(count),
                Err(Errno::EAGAIN) => Ok(0),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(failed(errno, "read", "taking the count of an event")),
            };
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn full(count: u64) -> Error {
    let message = format!(
        "event: adding {count} failed: the count would exceed 2^64 - 2. Take the count first"
    );
    Error::new(ErrorCode::OutOfRange, message)
}

fn failed(errno: Errno, syscall: &'static str, operation: &str) -> Error {
    Error::os(ErrorCode::System, errno, syscall, operation)
}
