//! The calls of KVM that `kvm-ioctls` does not have.

use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;

/// `struct kvm_signal_mask` (Linux, include/uapi/linux/kvm.h) with the mask after it.
#[repr(C, packed)]
struct SignalMask {
    len: u32,
    sigset: u64,
}

const _: () = assert!(size_of::<SignalMask>() == 12);

mod request {
    use super::SignalMask;

    // The number has the size of the structure without its mask.
    nix::ioctl_write_ptr_bad!(
        set_signal_mask,
        nix::request_code_write!(0xae, 0x8b, 4),
        SignalMask
    );
}

/// Sets the signal mask of the calling thread while it executes the guest: bit n is signal n + 1.
pub(super) fn set_signal_mask(fd: &VcpuFd, sigset: u64) -> nix::Result<()> {
    let mask = SignalMask { len: 8, sigset };
    // SAFETY: the descriptor is open. The kernel reads the 8 bytes after `len`.
    unsafe { request::set_signal_mask(fd.as_raw_fd(), &raw const mask) }.map(drop)
}
