//! The signal that makes a processor leave the guest.

use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use super::{ioctl, memory_error};
use crate::{Error, ErrorCode, Result};

/// The threads of processors block it, except in the guest. There it ends `KVM_RUN`, stays pending, and is discarded:
/// the kernel never delivers it, and the process needs no handler.
const SIGNAL: Signal = Signal::SIGUSR2;
/// The mask in the guest: all signals but this one and that of a memory error.
const BLOCKED_IN_GUEST: u64 = !(1 << (SIGNAL as u32 - 1) | 1 << (memory_error::SIGNAL as u32 - 1));

/// The signal in its thread.
#[derive(Debug)]
pub(super) struct Kick {
    signal: SigSet,
}

impl Kick {
    /// Blocks all signals in the calling thread: other threads handle those of the process.
    pub(super) fn for_this_thread() -> Result<Self> {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
            .map_err(|errno| failed(errno, "pthread_sigmask"))?;
        let mut signal = SigSet::empty();
        signal.add(SIGNAL);
        Ok(Self { signal })
    }

    /// Makes `KVM_RUN` of a processor return while the signal is pending.
    pub(super) fn interrupt_guest(fd: &VcpuFd) -> Result<()> {
        ioctl::set_signal_mask(fd, BLOCKED_IN_GUEST)
            .map_err(|errno| failed(errno, "ioctl(KVM_SET_SIGNAL_MASK)"))
    }

    /// Sends the signal to a thread that exists and blocks it.
    pub(super) fn send(thread: Pthread) {
        // It fails only for a thread that does not exist.
        let _ = pthread_kill(thread, SIGNAL);
    }

    /// Takes the signal, and waits for it if it is not pending.
    pub(super) fn take(&self) {
        let _ = self.signal.wait(); // the set is valid
    }
}

fn failed(errno: Errno, syscall: &'static str) -> Error {
    let operation = "setting the signals of a virtual processor";
    Error::os(ErrorCode::System, errno, syscall, operation)
}
