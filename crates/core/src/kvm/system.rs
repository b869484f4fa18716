//! `/dev/kvm`, and the capabilities that a virtual machine requires.

use std::os::fd::{FromRawFd, IntoRawFd};
use std::thread::{Builder, JoinHandle};

use kvm_ioctls::{Cap, Kvm};
use nix::errno::Errno;

use crate::device_file;
use crate::{Error, ErrorCode, Result};

/// The only version of the API (Linux, Documentation/virt/kvm/api.rst, 4.1).
const API_VERSION: i32 = 12;

/// The required capabilities, and what the kernel lacks without them.
const REQUIRED: [(Cap, &str); 8] = [
    (Cap::Irqchip, "an interrupt controller in the kernel"),
    (Cap::Pit2, "a timer in the kernel"),
    (Cap::UserMemory, "memory slots"),
    (
        Cap::ReadonlyMem,
        "memory slots that the guest can only read",
    ),
    (Cap::ImmediateExit, "immediate exits"),
    (Cap::Irqfd, "interrupts by eventfds"),
    (Cap::Ioeventfd, "eventfds for guest accesses"),
    (Cap::IrqRouting, "interrupt routing"),
];

/// Opens `/dev/kvm`.
///
/// # Errors
/// `ERR_KVM_UNAVAILABLE` (`ENOENT`, `EACCES`), `ERR_KVM_UNSUPPORTED`.
pub(super) fn open() -> Result<Kvm> {
    let fd = device_file::open("/dev/kvm", ErrorCode::KvmUnavailable, "opening KVM")?;
    // SAFETY: the descriptor is open, and owned by nobody else.
    let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
    let version = kvm.get_api_version();
    if version != API_VERSION {
        let message = format!("KVM has API version {version}, expected {API_VERSION}");
        return Err(Error::new(ErrorCode::KvmUnsupported, message));
    }
    for (capability, lack) in REQUIRED {
        if !kvm.check_extension(capability) {
            let message = format!("KVM of this kernel does not support {lack}");
            return Err(Error::new(ErrorCode::KvmUnsupported, message));
        }
    }
    Ok(kvm)
}

/// Converts an error of `kvm-ioctls`.
pub(super) fn errno_of(error: kvm_ioctls::Error) -> Errno {
    Errno::from_raw(error.errno())
}

/// The error of a system call of KVM during `operation`.
pub(super) fn failed(
    syscall: &'static str,
    operation: impl std::fmt::Display,
) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::os(ErrorCode::System, errno_of(error), syscall, operation)
}

/// Starts a thread.
///
/// # Errors
/// `ERR_SYSTEM`.
pub(super) fn start_thread(
    name: String,
    operation: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(body).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Error::os(ErrorCode::System, errno, "clone3", operation)
    })
}
