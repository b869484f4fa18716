//! System calls that copy between a buffer and a file, or an address of this process that may fault.
//!
//! The latter use `process_vm_readv` and `process_vm_writev` on this process, so that a missing page, the end of a
//! truncated file, or read-only memory is an error and not a signal. These calls fail with `EFAULT` for a device's
//! BAR.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_void, iovec};
use nix::errno::Errno;

use super::bytes::{ByteSink, ByteSource};
use crate::range::to_u64;
use crate::{Error, ErrorCode, Result};

type Copy = unsafe extern "C" fn(
    libc::pid_t,
    *const iovec,
    libc::c_ulong,
    *const iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

/// Fills `into` from address `from`. An error names the `operation`. A failed copy may have filled part of the
/// buffer.
pub(crate) fn read_memory(
    from: usize,
    mut into: ByteSink<'_>,
    operation: impl std::fmt::Display,
) -> Result<()> {
    let (local, length) = (into.address().cast(), into.len());
    // SAFETY: the kernel writes only within the buffer.
    unsafe { copy(libc::process_vm_readv, local, length, from) }
        .map_err(|errno| fault(errno, "process_vm_readv", operation))
}

/// Copies `from` to address `to`. An error names the `operation`. A failed copy may have written part of the range.
pub(crate) fn write_memory(
    to: usize,
    from: ByteSource<'_>,
    operation: impl std::fmt::Display,
) -> Result<()> {
    let local = from.address().cast_mut().cast();
    // SAFETY: the kernel reads only within the buffer.
    unsafe { copy(libc::process_vm_writev, local, from.len(), to) }
        .map_err(|errno| fault(errno, "process_vm_writev", operation))
}

/// Repeats a copy between a buffer and an address until it is complete.
///
/// # Safety
/// The caller permits the call's use of the buffer: `process_vm_readv` fills it, `process_vm_writev` reads it.
unsafe fn copy(call: Copy, local: *mut c_void, length: usize, remote: usize) -> nix::Result<()> {
    let mut done = 0_usize;
    while let Some(rest) = length.checked_sub(done).filter(|rest| *rest > 0) {
        let here = iovec {
            iov_base: local.wrapping_byte_add(done),
            iov_len: rest,
        };
        let there = iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(
                remote.checked_add(done).ok_or(Errno::EFAULT)?,
            ),
            iov_len: rest,
        };
        // SAFETY: the caller guarantees the buffer. The kernel checks the address.
        let result = unsafe { call(libc::getpid(), &raw const here, 1, &raw const there, 1, 0) };
        match length_of(result) {
            Ok(0) => return Err(Errno::EFAULT),
            Ok(count) => done = done.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn fault(errno: Errno, syscall: &'static str, operation: impl std::fmt::Display) -> Error {
    let code = if errno == Errno::EFAULT {
        ErrorCode::MemoryFault
    } else {
        ErrorCode::System
    };
    Error::os(code, errno, syscall, operation)
}

/// Fills `into` from offset `at` of a file. Returns whether the file is so long.
pub(crate) fn read_file(fd: BorrowedFd<'_>, mut into: ByteSink<'_>, at: i64) -> nix::Result<bool> {
    repeat(at, into.len(), |at| {
        let (address, length) = (into.address().cast::<c_void>(), into.len());
        // SAFETY: the kernel writes only within the bytes, which are a sink.
        let count = length_of(unsafe { libc::pread64(fd.as_raw_fd(), address, length, at) })?;
        into.take(count);
        Ok(count)
    })
}

/// Writes `from` at offset `at` of a file. Returns whether the file takes all of it.
pub(crate) fn write_file(
    fd: BorrowedFd<'_>,
    mut from: ByteSource<'_>,
    at: i64,
) -> nix::Result<bool> {
    repeat(at, from.len(), |at| {
        let (address, length) = (from.address().cast::<c_void>(), from.len());
        // SAFETY: the kernel reads only within the bytes.
        let count = length_of(unsafe { libc::pwrite64(fd.as_raw_fd(), address, length, at) })?;
        from = from.split_at(count).1;
        Ok(count)
    })
}

/// Calls `copy` with the offset of the rest until it has copied `length` bytes. Returns `false` once it copies none.
fn repeat(
    mut at: i64,
    length: usize,
    mut copy: impl FnMut(i64) -> nix::Result<usize>,
) -> nix::Result<bool> {
    let mut rest = length;
    while rest > 0 {
        match copy(at) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                at = at.saturating_add_unsigned(to_u64(count));
                rest = rest.saturating_sub(count);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Returns the number of bytes that a system call copied, from its return value.
fn length_of(result: libc::ssize_t) -> nix::Result<usize> {
    Errno::result(result).and_then(|count| usize::try_from(count).map_err(|_| Errno::EIO))
}
