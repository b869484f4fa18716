//! A device's state after resets that were done, and after resets that the kernel refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;

use super::device::Device;
use crate::ErrorCode;
use crate::fake_kernel::{self, Call};
use crate::locked::write;

const CONFIG: u32 = 7;
const EXPRESS: usize = 0x40;
const ADVANCED: usize = 0x80;

/// Returns the config space of a device with memory decode on, with these bytes at these offsets.
fn config(fields: &[(usize, u8)]) -> [u8; 256] {
    let mut bytes = [0; 256];
    let express = [
        (0x34, 0x40),
        (EXPRESS, 0x10),
        (EXPRESS + 1, 0x80),
        (ADVANCED, 0x13),
    ];
    for (at, value) in [(0, 0x34), (1, 0x12), (4, 2), (6, 0x10)]
        .iter()
        .chain(&express)
        .chain(fields)
    {
        bytes[*at] = *value;
    }
    bytes
}

#[test]
fn a_reset_counts_as_a_revocation_and_a_refused_one_does_not() {
    let device = Device::fake(&config(&[]), false);
    fake_kernel::expect([(Call::ResetDevice, Err(Errno::EINVAL))]);
    assert_eq!(
        device.reset().unwrap_err().code(),
        ErrorCode::ResetUnsupported
    );
    assert_eq!(
        (device.revocations(), device.memory_accessible()),
        (0, true)
    );

    let device = Device::fake(&config(&[]), true);
    fake_kernel::expect([(Call::ResetDevice, Ok(0))]);
    device.reset().unwrap();
    assert_eq!(device.revocations(), 1);
    // The kernel revokes the mappings before it tries the reset, even if the reset fails.
    fake_kernel::expect([(Call::ResetDevice, Err(Errno::EAGAIN))]);
    assert_eq!(device.reset().unwrap_err().code(), ErrorCode::System);
    assert_eq!(device.revocations(), 2);
}

#[test]
fn an_unsupported_bus_reset_is_not_a_revocation() {
    let device = Device::fake(&config(&[]), true);
    for errno in [Errno::ENODEV, Errno::EPERM] {
        fake_kernel::expect([(Call::HotReset, Err(errno))]);
        assert_eq!(
            device.hot_reset(&[]).unwrap_err().code(),
            ErrorCode::ResetUnsupported
        );
        assert_eq!(device.revocations(), 0, "{errno}");
    }
    fake_kernel::expect([(Call::HotReset, Ok(0))]);
    device.hot_reset(&[]).unwrap();
    // The kernel may find a device that is not owned after it has revoked the mappings of another.
    fake_kernel::expect([(Call::HotReset, Err(Errno::EINVAL))]);
    device.hot_reset(&[]).unwrap_err();
    assert_eq!(device.revocations(), 2);
}

#[test]
fn a_bus_reset_after_which_a_device_does_not_return_is_a_revocation() {
    let device = Device::fake(&config(&[]), true);
    fake_kernel::expect([(Call::HotReset, Err(Errno::ENOTTY))]);
    device.hot_reset(&[]).unwrap_err();
    assert_eq!(device.revocations(), 1);
}

/// The header type of a device that does not respond: all ones.
const SILENT: (usize, u8) = (0x0e, 0xff);

#[test]
fn distinguishes_a_device_that_does_not_return_from_a_reset_from_one_that_cannot_be_reset() {
    let refused = |fields: &[(usize, u8)], errno: Errno| {
        let device = Device::fake(&config(fields), true);
        fake_kernel::expect([(Call::ResetDevice, Err(errno))]);
        let error = device.reset().unwrap_err();
        assert_eq!(error.errno(), Some(errno));
        (error.code(), device.memory_accessible())
    };
    assert_eq!(
        refused(&[], Errno::ENOTTY),
        (ErrorCode::ResetUnsupported, true)
    );
    assert_eq!(
        refused(&[SILENT], Errno::ENOTTY),
        (ErrorCode::BadConfigSpace, false)
    );
    // The reset was refused before the kernel tried it: the missing response has another cause.
    assert_eq!(
        refused(&[SILENT], Errno::EINVAL).0,
        ErrorCode::ResetUnsupported
    );
    assert_eq!(refused(&[SILENT], Errno::EAGAIN).0, ErrorCode::System);
}

#[test]
fn a_bus_reset_reports_a_device_that_does_not_return() {
    let (silent, other) = (
        Device::fake(&config(&[SILENT]), true),
        Device::fake(&config(&[]), true),
    );
    let refused = |device: &Device, others: &[Device]| {
        fake_kernel::expect([(Call::HotReset, Err(Errno::ENOTTY))]);
        device.hot_reset(others).unwrap_err()
    };
    for error in [
        refused(&other, std::slice::from_ref(&silent)),
        refused(&silent, std::slice::from_ref(&other)),
    ] {
        assert_eq!(error.code(), ErrorCode::BadConfigSpace);
        assert!(error.message().contains("did not return"), "{error}");
    }
    assert_eq!(refused(&other, &[]).code(), ErrorCode::ResetUnsupported);
}

#[test]
fn a_write_of_a_reset_bit_counts_only_if_the_function_supports_the_reset() {
    let revoked = |fields: &[(usize, u8)], at: usize, value: u8| {
        let device = Device::fake(&config(fields), true);
        device
            .write_region(CONFIG, at.try_into().unwrap(), &[value])
            .unwrap();
        device.revocations()
    };
    let (express, advanced) = (EXPRESS + 9, ADVANCED + 4);
    assert_eq!(revoked(&[], express, 0x80), 0);
    assert_eq!(revoked(&[(EXPRESS + 7, 0x10)], express, 0x80), 1);
    assert_eq!(revoked(&[(EXPRESS + 7, 0x10)], express, 0x7f), 0);
    assert_eq!(revoked(&[], advanced, 1), 0);
    assert_eq!(revoked(&[(ADVANCED + 3, 2)], advanced, 1), 0);
    assert_eq!(revoked(&[(ADVANCED + 3, 3)], advanced, 1), 1);
}

#[test]
fn the_state_of_a_device_can_be_read_while_it_is_being_reset() {
    let device = Device::fake(&config(&[]), true);
    let file = device.memory_file().unwrap();
    let resetting = write(&device.inner.open);
    let (sender, receiver) = mpsc::channel();
    let other = device.clone();
    let reader = std::thread::spawn(move || {
        let present = file.is_present(1).unwrap();
        let _ = sender.send((other.memory_accessible(), present, other.revocations()));
    });
    // The timeout only ends a failing test.
    let read = receiver.recv_timeout(Duration::from_secs(20));
    drop(resetting);
    reader.join().unwrap();
    assert_eq!(read, Ok((true, true, 0)));
    device.close().unwrap();
    assert!(!device.memory_accessible());
}
