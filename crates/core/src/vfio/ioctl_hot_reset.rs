//! The ioctls that reset a bus or slot.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::abi::{argsz, vfio_pci_hot_reset, vfio_pci_hot_reset_info};

mod raw {
    use super::super::abi::{vfio_pci_hot_reset, vfio_pci_hot_reset_info};
    use super::super::ioctl::number;

    nix::ioctl_readwrite_bad!(get_pci_hot_reset_info, number(12), vfio_pci_hot_reset_info);
    nix::ioctl_write_ptr_bad!(pci_hot_reset, number(13), vfio_pci_hot_reset);
}

/// The words of a `struct vfio_pci_dependent_device`: the group's number, and the address.
pub(super) const WORDS_EACH: usize = 2;
/// The words of argsz, flags and count.
const HEADER: usize = 3;
/// The largest number of devices to allocate memory for: 256 buses have no more.
const MAX_DEVICES: usize = 1 << 16;

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: returns the words of the devices.
pub(super) fn get_pci_hot_reset_info(fd: BorrowedFd<'_>) -> nix::Result<Vec<u32>> {
    devices(|words| {
        // SAFETY: the words outlive the call, have the structure's alignment, and give their length in bytes in
        // argsz, the first word.
        unsafe { raw::get_pci_hot_reset_info(fd.as_raw_fd(), words.as_mut_ptr().cast()) }
    })
}

/// `VFIO_DEVICE_PCI_HOT_RESET`
pub(super) fn pci_hot_reset(fd: BorrowedFd<'_>, groups: &[BorrowedFd<'_>]) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::HotReset) {
        return answer.map(drop);
    }
    let count = u32::try_from(groups.len()).map_err(|_| Errno::E2BIG)?;
    let length = count
        .checked_mul(4)
        .and_then(|length| length.checked_add(argsz::<vfio_pci_hot_reset>()))
        .ok_or(Errno::E2BIG)?;
    let mut words = vec![length, 0, count];
    words.extend(groups.iter().map(|group| group.as_raw_fd().cast_unsigned()));
    // SAFETY: the words outlive the call, have the structure's alignment, and give their length in bytes in argsz,
    // the first word.
    unsafe { raw::pci_hot_reset(fd.as_raw_fd(), words.as_ptr().cast()) }.map(drop)
}

/// Calls with space for a few devices, and again with more if the kernel reports a larger number.
fn devices(mut call: impl FnMut(&mut [u32]) -> nix::Result<i32>) -> nix::Result<Vec<u32>> {
    let mut room = 8_usize;
    // Devices can be added between two calls, so a few attempts are allowed.
    for _ in 0..8 {
        let length = room.saturating_mul(WORDS_EACH).saturating_add(HEADER);
        let mut words = vec![0_u32; length];
        if let Some(argsz) = words.first_mut() {
            *argsz = u32::try_from(length.saturating_mul(size_of::<u32>())).unwrap_or(u32::MAX);
        }
        let result = call(&mut words);
        let count = words.get(2).copied().unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match result {
            Ok(_) if count <= room => {
                words.truncate(count.saturating_mul(WORDS_EACH).saturating_add(HEADER));
                return Ok(words.split_off(HEADER));
            }
            Ok(_) => return Err(Errno::EOVERFLOW),
            Err(Errno::ENOSPC) if count > room && count <= MAX_DEVICES => room = count,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ENOSPC)
}

const _: () = {
    assert!(size_of::<vfio_pci_hot_reset_info>() == size_of::<[u32; HEADER]>());
    assert!(align_of::<vfio_pci_hot_reset_info>() == align_of::<u32>());
    assert!(size_of::<vfio_pci_hot_reset>() == size_of::<[u32; HEADER]>());
    assert!(align_of::<vfio_pci_hot_reset>() == align_of::<u32>());
};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Calls `devices` with a kernel that has that many devices at each call. Returns the result and the number of
    /// calls.
    fn call_devices(present: &[u32]) -> (nix::Result<Vec<u32>>, usize) {
        let mut calls = 0;
        let result = devices(|words| {
            let count = present[calls.min(present.len() - 1)];
            calls += 1;
            assert_eq!(usize::try_from(words[0]).unwrap(), words.len() * 4);
            words[2] = count;
            let needed = usize::try_from(count).unwrap() * WORDS_EACH;
            let Some(places) = words.get_mut(HEADER..HEADER + needed) else {
                return Err(Errno::ENOSPC);
            };
            for (place, value) in places.iter_mut().zip(1..) {
                *place = value;
            }
            Ok(0)
        });
        (result, calls)
    }

    #[test]
    fn calls_again_with_space_for_all_devices() {
        let (words, calls) = call_devices(&[2]);
        assert_eq!((words.unwrap(), calls), (vec![1, 2, 3, 4], 1));
        let (words, calls) = call_devices(&[9, 11, 10]);
        assert_eq!((words.unwrap().len(), calls), (2 * 10, 3));
        assert_eq!(call_devices(&[0]).0.unwrap(), []);
    }

    #[test]
    fn fails_if_the_number_of_devices_keeps_growing_or_is_too_large() {
        let growing: Vec<u32> = (1..20).map(|call| call * 100).collect();
        assert_eq!(call_devices(&growing), (Err(Errno::ENOSPC), 8));
        assert_eq!(call_devices(&[u32::MAX]), (Err(Errno::ENOSPC), 1));
        let lying = devices(|words| {
            words[2] = 9;
            Ok(0)
        });
        assert_eq!(lying, Err(Errno::EOVERFLOW));
    }
}
