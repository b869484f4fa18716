//! An eventfd: a counter in the kernel, to which every owner of the descriptor can add.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd as Descriptor};

use crate::{Error, ErrorCode, Result};

/// A counter of events. Clones share it; the kernel (an interrupt, an irqfd) holds its own reference.
#[derive(Debug, Clone)]
pub struct EventFd {
    descriptor: Arc<Descriptor>,
}

impl EventFd {
    /// Creates an eventfd with count 0. It never blocks, and is closed on exec.
    ///
    /// # Errors
    /// `ERR_SYSTEM`: too many open files.
    pub fn new() -> Result<Self> {
        Descriptor::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|descriptor| Self {
                descriptor: Arc::new(descriptor),
            })
            .map_err(|errno| failed(errno, "eventfd2", "creating an event descriptor"))
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
