//! NUMA placement: `mbind`, which nix has no wrapper for.

use nix::errno::Errno;

use crate::{Error, ErrorCode, Result};

/// The kernel's limit on node numbers on the usual configurations (`MAX_NUMNODES`).
const NODES: u32 = 1024;
const WORDS: usize = 16;

/// Asks for the pages of `at..at + length` that are not there yet to come from `node` only.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for a node the system doesn't have, `ERR_SYSTEM` otherwise (`ENOSYS` on a
/// kernel without NUMA).
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn bind_to_node(at: usize, length: usize, node: u32) -> Result<()> {
    let (word, bit) = (node / 64, node % 64);
    let mut mask = [0_u64; WORDS];
    let slot = usize::try_from(word)
        .ok()
        .and_then(|word| mask.get_mut(word));
    let Some(slot) = slot else {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("NUMA node {node} exceeds {}", NODES - 1),
        ));
    };
    *slot = 1 << bit;
    // SAFETY: the mask outlives the call and has NODES bits (the kernel reads one bit less than it
    // is told); the policy changes where pages come from, not what they hold.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            at,
            length,
            libc::c_long::from(libc::MPOL_BIND),
            mask.as_ptr(),
            libc::c_ulong::from(NODES) + 1,
            0_u64,
        )
    };
    Errno::result(result).map(drop).map_err(|errno| {
        let code = if errno == Errno::EINVAL {
            ErrorCode::InvalidArgument
        } else {
            ErrorCode::System
        };
        Error::os(
            code,
            errno,
            "mbind",
            format!("binding memory to NUMA node {node}"),
        )
    })
}

/// Checks that `node` can be in a node mask at all.
pub(crate) fn check_node(node: u32) -> Result<()> {
    if node < NODES {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("NUMA node {node} exceeds {}", NODES - 1),
    ))
}
