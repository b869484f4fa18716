//! Resets a bus or slot, and with it every device there.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::device::Device;
use super::group::GroupInner;
use super::ioctl_hot_reset::{self, WORDS_EACH};
use crate::locked::write;
use crate::{Error, ErrorCode, Result};

/// The number of tries of a reset that finds a lock taken, and the time between them: a second in all.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// A device that a hot reset affects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetDevice {
    /// The PCI address, `0000:01:00.0`.
    pub address: String,
}

impl ResetDevice {
    /// Decodes the second word of `struct vfio_pci_dependent_device`. It has the segment (16 bits), bus, device and
    /// function. The first word is the number of the device's group, or its id in the iommufd if it was opened by its
    /// own file.
    fn decode(place: u32) -> Self {
        let [s0, s1, bus, function] = place.to_ne_bytes();
        let segment = u16::from_ne_bytes([s0, s1]);
        let address = format!(
            "{segment:04x}:{bus:02x}:{:02x}.{}",
            function >> 3,
            function & 7
        );
        Self { address }
    }
}

impl Device {
    /// Returns the devices that a hot reset affects: all on the bus or in the slot, including this one.
    ///
    /// # Errors
    /// `ERR_RESET_UNSUPPORTED` if neither bus nor slot can be reset (`ENODEV`), or one of the devices is not in an
    /// IOMMU group (`EPERM`); `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn hot_reset_info(&self) -> Result<Vec<ResetDevice>> {
        let words = self
            .inner
            .with_fd(ioctl_hot_reset::get_pci_hot_reset_info)?
            .map_err(|errno| {
                let operation = format!(
                    "reading the devices that a bus reset of device {} affects",
                    self.inner.name
                );
                refused(
                    errno,
                    "ioctl(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO)",
                    operation,
                )
            })?;
        let (devices, _) = words.as_chunks::<WORDS_EACH>();
        Ok(devices
            .iter()
            .map(|[_, place]| ResetDevice::decode(*place))
            .collect())
    }

    /// Resets the bus or slot. `others` are the devices there that this process has open. The groups of all these
    /// devices must contain every affected device; or every affected device must be bound to the same iommufd. The
    /// kernel saves and restores their config space. Takes as long as the bus requires, up to seconds.
    ///
    /// # Errors
    /// `ERR_RESET_UNSUPPORTED` if no such reset exists (`ENODEV`), or if it affects a device that is not in these
    /// groups or not bound to VFIO (`EINVAL`). `ERR_BAD_CONFIG_SPACE` if a device did not return from it. `ERR_CLOSED`,
    /// `ERR_SYSTEM` (`EAGAIN`: another process uses one of the devices).
    pub fn hot_reset(&self, others: &[Self]) -> Result<()> {
        let mut devices: Vec<&Self> = others.iter().chain([self]).collect();
        // Two concurrent resets that share devices must not deadlock.
        devices.sort_by_key(|device| Arc::as_ptr(&device.inner));
        devices.dedup_by_key(|device| Arc::as_ptr(&device.inner));
        let guards: Vec<_> = devices
            .iter()
            .map(|device| (*device, write(&device.inner.open)))
            .collect();
        let mut opened = Vec::with_capacity(guards.len());
        for (device, guard) in &guards {
            opened.push((*device, device.inner.expect_open(guard.as_ref())?));
        }
        let groups = opened.iter().filter_map(|(_, open)| open.group()).collect();
        let this = opened
            .iter()
            .find(|(device, _)| Arc::ptr_eq(&device.inner, &self.inner));
        let this = match this {
            Some((_, open)) => open,
            None => self.inner.expect_open(None)?, // unreachable: the devices include this one
        };
        let result = GroupInner::with_descriptors(groups, |groups| {
            until_idle(|| ioctl_hot_reset::pci_hot_reset(this.fd.as_fd(), groups))
        })?;
        // With these errors the kernel rejects the reset before it touches any device. After any other failure it may
        // have revoked the dma-bufs of some (`vfio_pci_dev_set_hot_reset`); ENOTTY also means that a device did not
        // return from the reset (`pci_dev_wait`).
        if !matches!(result, Err(Errno::ENODEV | Errno::EPERM)) {
            for (device, open) in &opened {
                device.inner.was_reset(open.fd.as_fd());
            }
        }
        result.map_err(|errno| {
            let lost = opened
                .iter()
                .find(|(device, open)| device.inner.is_absent(open.fd.as_fd()));
            if let (Errno::ENOTTY, Some((device, _))) = (errno, lost) {
                return device
                    .inner
                    .not_returned("ioctl(VFIO_DEVICE_PCI_HOT_RESET)");
            }
            let operation = format!("resetting the bus of device {}", self.inner.name);
            refused(errno, "ioctl(VFIO_DEVICE_PCI_HOT_RESET)", operation)
        })
    }
}

/// Repeats a reset that fails with `EBUSY`. The kernel does not wait for the lock of a device's memory
/// (`vfio_pci_dev_set_hot_reset`), which an access to its BARs takes. Nothing was reset then.
fn until_idle(mut reset: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    for _ in 1..TRIES {
        match reset() {
            Err(Errno::EBUSY) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    reset()
}

fn refused(errno: Errno, syscall: &'static str, operation: String) -> Error {
    let code = match errno {
        Errno::ENODEV | Errno::EINVAL | Errno::ENOTTY | Errno::EPERM => ErrorCode::ResetUnsupported,
        _ => ErrorCode::System,
    };
    Error::os(code, errno, syscall, operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_waits_for_locks_that_other_threads_hold() {
        let mut busy = 3;
        let result = until_idle(|| {
            if busy == 0 {
                return Ok(());
            }
            busy -= 1;
            Err(Errno::EBUSY)
        });
        assert_eq!((result, busy), (Ok(()), 0));

        let mut calls = 0;
        let result = until_idle(|| {
            calls += 1;
            Err(Errno::EBUSY)
        });
        assert_eq!((result, calls), (Err(Errno::EBUSY), TRIES));

        let mut calls = 0;
        let result = until_idle(|| {
            calls += 1;
            Err(Errno::ENODEV)
        });
        assert_eq!((result, calls), (Err(Errno::ENODEV), 1));
    }

    #[test]
    fn formats_an_address_like_the_kernel() {
        let place = u32::from_ne_bytes({
            let [low, high] = 0x12ab_u16.to_ne_bytes();
            [low, high, 0xc1, 0x1f << 3 | 5]
        });
        assert_eq!(ResetDevice::decode(place).address, "12ab:c1:1f.5");
        assert_eq!(ResetDevice::decode(0).address, "0000:00:00.0");
    }
}
