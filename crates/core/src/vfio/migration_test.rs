//! Sessions of migration data, on pipes in place of the files of a driver.
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::unistd::{pipe, read as read_fd, write as write_fd};

use super::device::Device;
use super::migration::MigrationState;
use crate::ErrorCode;
use crate::locked::{lock, read};

/// Returns a device with a session.
fn device_with(session: OwnedFd) -> Device {
    let device = Device::fake(&[0; 256], false);
    let open = read(&device.inner().open);
    *lock(&open.as_ref().unwrap().migration) = Some(Arc::new(session));
    drop(open);
    device
}

#[test]
fn reads_a_session_up_to_its_end() {
    let (from, to) = pipe().unwrap();
    let device = device_with(from);
    write_fd(&to, b"state").unwrap();
    assert_eq!(device.read_migration(3).unwrap(), b"sta");
    assert_eq!(device.read_migration(usize::MAX).unwrap(), b"te");
    drop(to);
    assert!(device.read_migration(1).unwrap().is_empty());
    assert_eq!(
        device.write_migration(b"x").unwrap_err().code(),
        ErrorCode::MigrationState
    );
}

#[test]
fn writes_all_bytes_and_reports_a_session_that_takes_none() {
    let (from, to) = pipe().unwrap();
    let device = device_with(to);
    device.write_migration(b"state").unwrap();
    let mut bytes = [0; 8];
    assert_eq!(read_fd(&from, &mut bytes), Ok(5));
    assert_eq!(
        device.read_migration(1).unwrap_err().code(),
        ErrorCode::MigrationState
    );
    drop(from);
    let error = device.write_migration(b"x").unwrap_err();
    assert_eq!(error.code(), ErrorCode::MigrationData);
    assert_eq!(error.errno_name().as_deref(), Some("EPIPE"));
}

#[test]
fn a_device_without_a_session_transfers_nothing() {
    let device = Device::fake(&[0; 256], false);
    let code = |error: crate::Error| error.code();
    assert_eq!(
        code(device.read_migration(1).unwrap_err()),
        ErrorCode::MigrationState
    );
    assert_eq!(
        code(device.precopy_info().unwrap_err()),
        ErrorCode::MigrationState
    );
    device.close().unwrap();
    assert_eq!(
        code(device.write_migration(b"x").unwrap_err()),
        ErrorCode::Closed
    );
    assert_eq!(
        code(
            device
                .set_migration_state(MigrationState::Stop)
                .unwrap_err()
        ),
        ErrorCode::Closed
    );
}

#[test]
fn closing_a_device_closes_its_session() {
    let (from, to) = pipe().unwrap();
    device_with(from).close().unwrap();
    assert!(write_fd(&to, b"x").is_err(), "the last reader is gone");
}

#[test]
fn a_file_that_is_not_of_a_device_cannot_migrate() {
    let device = Device::fake(&[0; 256], false);
    assert_eq!(device.migration_support().unwrap(), None);
    let error = device
        .set_migration_state(MigrationState::Stop)
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(!device.has_dma_log().unwrap());
}

#[test]
fn numbers_are_those_of_the_kernel() {
    use vfio_bindings::bindings::vfio as kernel;
    let pairs = [
        (
            MigrationState::Error,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR,
        ),
        (
            MigrationState::Stop,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP,
        ),
        (
            MigrationState::Running,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING,
        ),
        (
            MigrationState::StopCopy,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY,
        ),
        (
            MigrationState::Resuming,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING,
        ),
        (
            MigrationState::RunningP2p,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P,
        ),
        (
            MigrationState::PreCopy,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY,
        ),
        (
            MigrationState::PreCopyP2p,
            kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P,
        ),
    ];
    for (state, number) in pairs {
        assert_eq!(state.number(), number);
        assert_eq!(MigrationState::from_number(number), Some(state));
    }
    assert_eq!(MigrationState::from_number(8), None);
}
