//! An eventfd: a counter in the kernel, to which every owner of the descriptor can add.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};

use crate::{Descriptor, Error, ErrorCode, Result};

/// A counter of events. Clones share it; the kernel (an interrupt, an irqfd) holds its own reference.
#[derive(Debug, Clone)]
pub struct EventFd {
    descriptor: Arc<Counter>,
}

impl EventFd {
    /// Creates an eventfd with count 0, non-blocking (`O_NONBLOCK`). It is closed on exec.
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
        make_non_blocking(&copy)?;
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
    /// Every owner of the eventfd can clear `O_NONBLOCK`, so this call checks that there is room before it writes. It
    /// blocks this thread only if another owner fills the count in between, and has cleared the flag.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` if the count would exceed 2^64 - 2; it does not change then.
    pub fn signal(&self, count: u64) -> Result<()> {
        // The kernel rejects the largest number with an errno that does not mean a full count.
        if count == u64::MAX {
            return Err(full(count));
        }
        if count == 0 {
            return Ok(());
        }
        if count > 1 {
            // The kernel reports room for 1 only.
            make_non_blocking(&self.descriptor)?;
        }
        loop {
            return match self.has_room().and_then(|has_room| {
                if has_room {
                    self.descriptor.write(count)
                } else {
                    Err(Errno::EAGAIN)
                }
            }) {
                Ok(_) => Ok(()),
                Err(Errno::EAGAIN) => Err(full(count)),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(failed(errno, "write", "signalling an event")),
            };
        }
    }

    /// Returns whether 1 can be added to the count.
    fn has_room(&self) -> nix::Result<bool> {
        let mut polled = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        Ok(poll(&mut polled, PollTimeout::ZERO)? > 0)
    }

    /// Returns the count, and sets it to 0. Never blocks, whatever other owners do to the flags of the eventfd.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an errno that an eventfd does not return.
    pub fn take(&self) -> Result<u64> {
        loop {
            return match self.read_without_waiting() {
                Ok(count) => Ok(count),
                Err(Errno::EAGAIN) => Ok(0),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(failed(errno, "preadv2", "taking the count of an event")),
            };
        }
    }

    fn read_without_waiting(&self) -> nix::Result<u64> {
        const ONE_PART: libc::c_long = 1;
        const NO_POSITION: libc::c_long = -1;
        let mut count = 0_u64;
        let part = libc::iovec {
            iov_base: (&raw mut count).cast(),
            iov_len: size_of::<u64>(),
        };
        // SAFETY: the part and its 8 bytes outlive the call, which writes no others. The call takes the position as two
        // words. musl has a function for it since 1.2.5 only.
        let result = unsafe {
            libc::syscall(
                libc::SYS_preadv2,
                self.raw_fd(),
                &raw const part,
                ONE_PART,
                NO_POSITION,
                NO_POSITION,
                libc::RWF_NOWAIT,
            )
        };
        Errno::result(result).map(|_| count)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sets `O_NONBLOCK`, a flag that all owners of the eventfd share.
fn make_non_blocking(eventfd: impl AsFd) -> Result<()> {
    let operation = "making an event descriptor non-blocking";
    let failed = |errno| failed(errno, "fcntl(F_SETFL)", operation);
    let flags = fcntl(&eventfd, FcntlArg::F_GETFL).map_err(failed)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&eventfd, FcntlArg::F_SETFL(flags)).map_err(failed)?;
    Ok(())
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
