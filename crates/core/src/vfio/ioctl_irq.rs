//! The ioctls for interrupts.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::abi::{VFIO_IRQ_SET_DATA_EVENTFD, argsz, vfio_irq_info, vfio_irq_set};

mod raw {
    use super::super::abi::{vfio_irq_info, vfio_irq_set};
    use super::super::ioctl::number;

    nix::ioctl_readwrite_bad!(device_get_irq_info, number(9), vfio_irq_info);
    nix::ioctl_write_ptr_bad!(device_set_irqs, number(10), vfio_irq_set);
}

/// `VFIO_DEVICE_GET_IRQ_INFO`
pub(super) fn device_get_irq_info(fd: BorrowedFd<'_>, index: u32) -> nix::Result<vfio_irq_info> {
    let mut info = vfio_irq_info {
        argsz: argsz::<vfio_irq_info>(),
        index,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::device_get_irq_info(fd.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// `VFIO_DEVICE_SET_IRQS` for `count` vectors from `start`, with no data.
pub(super) fn device_set_irqs(
    fd: BorrowedFd<'_>,
    action: u32,
    index: u32,
    start: u32,
    count: u32,
) -> nix::Result<i32> {
    set_irqs(
        fd,
        &[
            argsz::<vfio_irq_set>(),
            super::abi::VFIO_IRQ_SET_DATA_NONE | action,
            index,
            start,
            count,
        ],
    )
}

/// `VFIO_DEVICE_SET_IRQS`: sets the eventfds of vectors from `start`; `None` for no eventfd. A positive result is the
/// number of vectors that the kernel has, if that is fewer; it connects none then.
pub(super) fn device_set_irq_eventfds(
    fd: BorrowedFd<'_>,
    action: u32,
    index: u32,
    start: u32,
    eventfds: &[Option<RawFd>],
) -> nix::Result<i32> {
    let count = u32::try_from(eventfds.len()).map_err(|_| nix::errno::Errno::E2BIG)?;
    let data = count
        .checked_mul(4)
        .and_then(|length| length.checked_add(argsz::<vfio_irq_set>()))
        .ok_or(nix::errno::Errno::E2BIG)?;
    let mut words = vec![
        data,
        VFIO_IRQ_SET_DATA_EVENTFD | action,
        index,
        start,
        count,
    ];
    words.extend(
        eventfds
            .iter()
            .map(|eventfd| eventfd.unwrap_or(-1).cast_unsigned()),
    );
    set_irqs(fd, &words)
}

/// Calls the ioctl with a `struct vfio_irq_set`, which consists of 32-bit words, followed by its data.
fn set_irqs(fd: BorrowedFd<'_>, words: &[u32]) -> nix::Result<i32> {
    // SAFETY: the words outlive the call, have the structure's alignment, and give their length in bytes in argsz,
    // the first word.
    unsafe { raw::device_set_irqs(fd.as_raw_fd(), words.as_ptr().cast()) }
}

const _: () = {
    assert!(align_of::<vfio_irq_set>() == align_of::<u32>());
    assert!(core::mem::offset_of!(vfio_irq_set, data) == size_of::<[u32; 5]>());
};
