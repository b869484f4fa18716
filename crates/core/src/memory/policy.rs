//! NUMA policy: `mbind`, which nix does not wrap.

use nix::errno::Errno;

use crate::{Error, ErrorCode, Result};

/// The kernel's limit of node numbers in usual configurations (`MAX_NUMNODES`).
const NODES: u32 = 1024;
const WORDS: usize = 16;

/// Allocates the missing pages of `at..at + length` from `node` only.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` if the system does not have the node, otherwise `ERR_SYSTEM` (`ENOSYS` on a kernel without
/// NUMA).
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn bind_to_node(at: usize, length: usize, node: u32) -> Result<()> {
    check_node(node)?;
    let mut mask = [0_u64; WORDS];
    let word = usize::try_from(node / 64).ok();
    if let Some(word) = word.and_then(|word| mask.get_mut(word)) {
        *word = 1 << (node % 64);
    }
    // SAFETY: the mask outlives the call and has NODES bits (the kernel reads one bit less than the given number);
    // the policy changes the source of pages, not their contents.
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

/// Checks that a node mask can contain `node`.
pub(crate) fn check_node(node: u32) -> Result<()> {
    if node < NODES {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("NUMA node {node} exceeds {}", NODES - 1),
    ))
}
