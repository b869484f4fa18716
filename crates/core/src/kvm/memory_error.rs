//! Errors of the host's memory in pages that the guest accesses.
//!
//! The kernel signals an uncorrectable error to the thread of the processor that accesses the page (Linux,
//! arch/x86/kvm/mmu/mmu.c, `kvm_send_hwpoison_signal`; mm/memory-failure.c, `kill_proc`). The signal is blocked except
//! in the guest, where it ends `KVM_RUN` as the kick does. If it were blocked there, too, the processor would repeat
//! the instruction without end.

use std::mem::MaybeUninit;
use std::ptr;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

pub(super) const SIGNAL: Signal = Signal::SIGBUS;

/// Takes the signal if it is pending, and returns the address of the error in this process.
pub(super) fn take() -> Option<usize> {
    let mut set = SigSet::empty();
    set.add(SIGNAL);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let no_time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the three structures exist during the call.
    let taken = unsafe {
        libc::sigtimedwait(
            ptr::from_ref(set.as_ref()),
            info.as_mut_ptr(),
            &raw const no_time,
        )
    };
    if taken != SIGNAL as i32 {
        return None; // none is pending
    }
    // SAFETY: zeroes are a valid structure, and the kernel has filled it.
    let info = unsafe { info.assume_init() };
    if info.si_code == libc::BUS_MCEERR_AR {
        // SAFETY: this code selects the field.
        return Some(unsafe { info.si_addr() }.addr());
    }
    // Another process has sent it to this one. A thread that does not block it receives it.
    let _ = kill(Pid::this(), SIGNAL); // cannot fail
    None
}
