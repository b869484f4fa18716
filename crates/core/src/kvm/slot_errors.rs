//! Errors of memory slots, each with its reason and remedy.

use nix::errno::Errno;

use super::slots::PAGE;
use crate::{Error, ErrorCode, Range, Result};

const SET: &str = "ioctl(KVM_SET_USER_MEMORY_REGION)";

/// Checks that a slot begins and ends at pages.
pub(super) fn check_pages(range: &Range) -> Result<()> {
    let whole_pages =
        |error: Error| error.followed_by("a memory slot has whole pages. Align the range");
    range
        .check_aligned(PAGE, "guest address")
        .map_err(whole_pages)
}

/// The error of a mapping when all slots are in use.
pub(super) fn all_in_use(range: &Range, limit: u32) -> Error {
    let message = format!(
        "mapping {range} for KVM: all {limit} memory slots are in use. \
         Use fewer and larger mappings: each range of the flat memory map has a slot"
    );
    Error::new(ErrorCode::MappingLimit, message)
}

/// The error of a mapping of `source`, a range of the reservation, that KVM refused.
pub(super) fn not_made(range: &Range, source: &Range, errno: Errno) -> Error {
    let operation = format!("mapping {range} to {source} of the reservation for KVM");
    if errno == Errno::EEXIST {
        return Error::os(ErrorCode::Overlap, errno, SET, operation)
            .followed_by("another memory slot has some of these addresses. Unmap it first");
    }
    Error::os(ErrorCode::MapFailed, errno, SET, operation)
}

/// The error of a slot that KVM failed to remove.
pub(super) fn not_removed(range: &Range, errno: Errno) -> Error {
    let operation = format!("removing the memory slot of {range}");
    Error::os(ErrorCode::UnmapFailed, errno, SET, operation)
}

/// The error of a range that has only a part of a slot. The kernel is not called.
pub(super) fn cut(range: &Range, slot: &Range) -> Error {
    let message = format!(
        "unmapping {range} from KVM: the memory slot of {slot} is partly in it. Unmap all of the slot"
    );
    Error::new(ErrorCode::UnmapFailed, message)
}
