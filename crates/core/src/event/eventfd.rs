//! An eventfd: a counter in the kernel that anybody with the descriptor can add to.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd as Descriptor};

use crate::{Error, ErrorCode, Result};

/// A counter of events. Clones share it; the kernel (an interrupt, an irqfd) has its own hold on what
/// it was given.
#[derive(Debug, Clone)]
pub struct EventFd {
    descriptor: Arc<Descriptor>,
}

impl EventFd {
    /// Makes one that counts nothing yet. It never blocks, and is closed on exec.
    ///
    /// # Errors
    /// `ERR_SYSTEM`: too many open files.
    pub fn new() -> Result<Self> {
        Descriptor::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|descriptor| Self {
                descriptor: Arc::new(descriptor),
            })
            .map_err(|errno| failed(errno, "eventfd2", "making an event descriptor"))
    }

    /// The number of its descriptor, which stays its own.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Adds to the count.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` where the count would exceed 2^64 - 2; it is as before then.
    pub fn signal(&self, count: u64) -> Result<()> {
        // The kernel refuses the largest number at once, and has none to say for a count that is full.
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

    /// Takes the count, which is 0 from then on.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, if the kernel has something to say that is not known of an eventfd.
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
        "an event that is signalled {count} times more would count beyond 2^64 - 2: take its count first"
    );
    Error::new(ErrorCode::OutOfRange, message)
}

fn failed(errno: Errno, syscall: &'static str, what: &str) -> Error {
    Error::os(ErrorCode::System, errno, syscall, what)
}
