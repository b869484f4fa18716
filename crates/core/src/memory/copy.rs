//! Copies between a buffer and an address of this process that may fault.
//!
//! They go through the kernel (`process_vm_readv`/`writev` on ourselves), so that memory which is
//! not there, past the end of a truncated file or read-only, is an error and not a signal.
//! The kernel does not copy to or from a device's BAR this way either: `EFAULT`.

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::{Error, ErrorCode, Result};

/// Fills `into` from address `from`. `what` names the range in an error; a failed copy may have
/// filled part of the buffer.
pub(crate) fn read_memory(
    from: usize,
    into: &mut [u8],
    what: impl std::fmt::Display,
) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let Some(base) = from.checked_add(done) else {
            return Err(fault(Errno::EFAULT, "process_vm_readv", what));
        };
        let remote = RemoteIoVec {
            base,
            len: rest.len(),
        };
        match process_vm_readv(Pid::this(), &mut [IoSliceMut::new(rest)], &[remote]) {
            Ok(0) => return Err(fault(Errno::EFAULT, "process_vm_readv", what)),
            Ok(count) => done = done.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault(errno, "process_vm_readv", what)),
        }
    }
    Ok(())
}

/// Copies `from` to address `to`. `what` names the range in an error; a failed copy may have
/// written part of the range.
pub(crate) fn write_memory(to: usize, from: &[u8], what: impl std::fmt::Display) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
        let Some(base) = to.checked_add(done) else {
            return Err(fault(Errno::EFAULT, "process_vm_writev", what));
        };
        let remote = RemoteIoVec {
            base,
            len: rest.len(),
        };
        match process_vm_writev(Pid::this(), &[IoSlice::new(rest)], &[remote]) {
            Ok(0) => return Err(fault(Errno::EFAULT, "process_vm_writev", what)),
            Ok(count) => done = done.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault(errno, "process_vm_writev", what)),
        }
    }
    Ok(())
}

fn fault(errno: Errno, syscall: &'static str, what: impl std::fmt::Display) -> Error {
    let code = if errno == Errno::EFAULT {
        ErrorCode::MemoryFault
    } else {
        ErrorCode::System
    };
    Error::os(code, errno, syscall, what)
}
