//! The ioctls for migration and for a device's own log of DMA writes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::abi::{
    VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
    VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, VFIO_DEVICE_FEATURE_GET,
    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
    VFIO_DEVICE_FEATURE_MIGRATION, VFIO_DEVICE_FEATURE_PROBE, VFIO_DEVICE_FEATURE_SET,
    vfio_precopy_info,
};
use super::ioctl::fields;
use crate::Range;
use crate::range::to_u64;

mod raw {
    use super::super::abi::vfio_precopy_info;
    use super::super::ioctl::number;

    // The words of `struct vfio_device_feature`: argsz and flags, then the feature's own data.
    nix::ioctl_readwrite_bad!(device_feature, number(17), u64);
    nix::ioctl_readwrite_bad!(get_precopy_info, number(21), vfio_precopy_info);
}

/// The bytes of `struct vfio_precopy_info`, for its `argsz`.
const PRECOPY_INFO_SIZE: u32 = 24;

/// -1, in place of a descriptor.
const NO_DESCRIPTOR: u32 = u32::MAX;

/// `VFIO_DEVICE_FEATURE_MIGRATION`: returns `VFIO_MIGRATION_*`.
pub(super) fn migration_flags(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    get_word(fd, VFIO_DEVICE_FEATURE_MIGRATION)
}

/// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`: returns the state.
pub(super) fn migration_state(fd: BorrowedFd<'_>) -> nix::Result<u32> {
    // The state is the first of two 32-bit fields.
    let word = get_word(fd, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE)?;
    let [a, b, c, d, ..] = word.to_ne_bytes();
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`: changes the state. Returns the descriptor of a new session of data.
pub(super) fn set_migration_state(fd: BorrowedFd<'_>, state: u32) -> nix::Result<Option<OwnedFd>> {
    let mut words = state_words(state);
    device_feature(fd, &mut words)?;
    // SAFETY: the kernel has made the descriptor for this call.
    Ok(session_number(words).map(|data| unsafe { OwnedFd::from_raw_fd(data) }))
}

/// Returns the words that set a state. They contain no descriptor, also if the kernel does not write the field.
const fn state_words(state: u32) -> [u64; 2] {
    let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
    [fields(16, flags), fields(state, NO_DESCRIPTOR)]
}

/// Returns the number of the descriptor in the words of a state.
fn session_number([_, word]: [u64; 2]) -> Option<RawFd> {
    let [_, _, _, _, e, f, g, h] = word.to_ne_bytes();
    let number = RawFd::from_ne_bytes([e, f, g, h]);
    (number >= 0).then_some(number)
}

/// `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`: returns the estimated bytes of `STOP_COPY`.
pub(super) fn migration_data_size(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    get_word(fd, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE)
}

/// `VFIO_MIG_GET_PRECOPY_INFO`: returns the bytes of initial data and of changed data that can be read.
pub(super) fn precopy_info(session: BorrowedFd<'_>) -> nix::Result<(u64, u64)> {
    let mut info = vfio_precopy_info {
        argsz: PRECOPY_INFO_SIZE,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::get_precopy_info(session.as_raw_fd(), &raw mut info) }?;
    Ok((info.initial_bytes, info.dirty_bytes))
}

/// Checks whether the device has a log of its DMA writes.
pub(super) fn probe_dma_log(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags =
        VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    device_feature(fd, &mut [fields(8, flags)])
}

/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`
pub(super) fn start_dma_log(
    fd: BorrowedFd<'_>,
    ranges: &[Range],
    page_size: u64,
) -> nix::Result<()> {
    // The fields of `struct vfio_device_feature_dma_logging_range`: the first address, the length.
    let pairs: Vec<u64> = ranges
        .iter()
        .flat_map(|range| [range.start(), range.len()])
        .collect();
    let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    let count = u32::try_from(ranges.len()).map_err(|_| nix::errno::Errno::EINVAL)?;
    device_feature(
        fd,
        &mut [
            fields(32, flags),
            page_size,
            fields(count, 0),
            to_u64(pairs.as_ptr().expose_provenance()),
        ],
    )
}

/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`
pub(super) fn stop_dma_log(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
    device_feature(fd, &mut [fields(8, flags)])
}

/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`: sets the bits of written pages.
///
/// It clears the log of the range. The bitmap has a bit for each page of the range.
pub(super) fn report_dma_log(
    fd: BorrowedFd<'_>,
    range: &Range,
    page_size: u64,
    bitmap: &mut [u64],
) -> nix::Result<()> {
    let flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
    device_feature(
        fd,
        &mut [
            fields(40, flags),
            range.start(),
            range.len(),
            page_size,
            to_u64(bitmap.as_mut_ptr().expose_provenance()),
        ],
    )
}

/// Reads a feature whose data is one word.
fn get_word(fd: BorrowedFd<'_>, feature: u32) -> nix::Result<u64> {
    let mut words = [fields(16, VFIO_DEVICE_FEATURE_GET | feature), 0];
    device_feature(fd, &mut words)?;
    let [_, word] = words;
    Ok(word)
}

/// Calls the ioctl with the words of a feature. Its callers are the functions above.
fn device_feature(fd: BorrowedFd<'_>, words: &mut [u64]) -> nix::Result<()> {
    // SAFETY: the words outlive the call and give their length in bytes in argsz, the first field. The ranges and the
    // bitmap whose addresses they contain are parameters or locals of the caller, so they outlive the call as well; the
    // bitmap has a bit for each page that the words name.
    unsafe { raw::device_feature(fd.as_raw_fd(), words.as_mut_ptr()) }.map(drop)
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::vfio::abi::{
        vfio_device_feature_dma_logging_control, vfio_device_feature_dma_logging_range,
        vfio_device_feature_dma_logging_report, vfio_device_feature_mig_data_size,
        vfio_device_feature_mig_state, vfio_device_feature_migration,
    };

    #[test]
    fn a_descriptor_that_the_kernel_does_not_write_is_none() {
        assert_eq!(session_number(state_words(4)), None);
        assert_eq!(session_number([0, fields(4, 0)]), Some(0));
        assert_eq!(session_number([0, fields(4, 7)]), Some(7));
    }

    #[test]
    fn words_have_the_layout_of_the_structures() {
        assert_eq!(size_of::<vfio_device_feature_migration>(), 8);
        assert_eq!(size_of::<vfio_device_feature_mig_data_size>(), 8);
        assert_eq!(size_of::<vfio_device_feature_mig_state>(), 8);
        assert_eq!(offset_of!(vfio_device_feature_mig_state, device_state), 0);
        assert_eq!(offset_of!(vfio_device_feature_mig_state, data_fd), 4);
        assert_eq!(size_of::<vfio_precopy_info>(), 24);
        assert_eq!(size_of::<vfio_device_feature_dma_logging_control>(), 24);
        assert_eq!(
            offset_of!(vfio_device_feature_dma_logging_control, num_ranges),
            8
        );
        assert_eq!(
            offset_of!(vfio_device_feature_dma_logging_control, ranges),
            16
        );
        assert_eq!(size_of::<vfio_device_feature_dma_logging_range>(), 16);
        assert_eq!(offset_of!(vfio_device_feature_dma_logging_range, length), 8);
        assert_eq!(size_of::<vfio_device_feature_dma_logging_report>(), 32);
        assert_eq!(
            offset_of!(vfio_device_feature_dma_logging_report, page_size),
            16
        );
        assert_eq!(
            offset_of!(vfio_device_feature_dma_logging_report, bitmap),
            24
        );
    }
}
