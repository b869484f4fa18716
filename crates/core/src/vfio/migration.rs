//! Migration of a device: its states, and the sessions that transfer its data.
//!
//! The descriptor of a session belongs to the device and does not leave it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::abi::{VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY};
use super::device::Device;
use super::ioctl_migration as ioctl;
use crate::locked::{lock, read};
use crate::{Error, ErrorCode, Result};

const FEATURE: &str = "ioctl(VFIO_DEVICE_FEATURE)";
/// The largest number of bytes in one read of a session.
const MAX_READ: usize = 16 << 20;

/// The migration features of a device, in addition to stopping and copying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationSupport {
    /// Whether it can be quiesced: it accepts DMA of other devices, and does none to them.
    pub peer_to_peer: bool,
    /// Whether it transfers data while it runs.
    pub pre_copy: bool,
}

/// A state of a device (`enum vfio_device_mig_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MigrationState {
    /// It has failed and must be reset.
    Error = 0,
    /// It does nothing.
    Stop = 1,
    /// It runs.
    Running = 2,
    /// It does nothing, and its data can be read.
    StopCopy = 3,
    /// It does nothing, and takes data.
    Resuming = 4,
    /// It runs, without DMA to other devices.
    RunningP2p = 5,
    /// It runs, and its data can be read.
    PreCopy = 6,
    /// It runs, without DMA to other devices, and its data can be read.
    PreCopyP2p = 7,
}

impl MigrationState {
    /// All states, by the kernel's numbers.
    const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// Returns the state of the kernel's number, or `None` for an unknown one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Returns the kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether data is transferred in the state.
    const fn has_session(self) -> bool {
        matches!(
            self,
            Self::StopCopy | Self::Resuming | Self::PreCopy | Self::PreCopyP2p
        )
    }
}

impl fmt::Display for MigrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        })
    }
}

/// The data that can be read before a device is stopped (`VFIO_MIG_GET_PRECOPY_INFO`), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreCopyInfo {
    /// Initial data.
    pub initial: u64,
    /// Changes of data that was read.
    pub dirty: u64,
}

impl Device {
    /// Returns the migration features of the device, or `None` if it cannot migrate.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn migration_support(&self) -> Result<Option<MigrationSupport>> {
        match self.inner.with_fd(ioctl::migration_flags)? {
            Ok(flags) => Ok(Some(MigrationSupport {
                peer_to_peer: flags & u64::from(VFIO_MIGRATION_P2P) != 0,
                pre_copy: flags & u64::from(VFIO_MIGRATION_PRE_COPY) != 0,
            })),
            Err(Errno::ENOTTY | Errno::EINVAL) => Ok(None),
            Err(errno) => {
                Err(self.migration_error(errno, FEATURE, "reading the migration features"))
            }
        }
    }

    /// Returns the state of the device.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if it cannot migrate, `ERR_BAD_KERNEL_DATA` for an unknown state, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn migration_state(&self) -> Result<MigrationState> {
        let number = self
            .inner
            .with_fd(ioctl::migration_state)?
            .map_err(|errno| self.migration_error(errno, FEATURE, "reading the migration state"))?;
        MigrationState::from_number(number).ok_or_else(|| {
            let message = format!(
                "device {} is in the migration state {number}, which is unknown",
                self.inner.name
            );
            Error::new(ErrorCode::BadKernelData, message)
        })
    }

    /// Changes the state of the device; the kernel takes the arcs between the states. A state with a session of data
    /// opens one, and leaving these states closes it.
    ///
    /// # Errors
    /// `ERR_MIGRATION_STATE` with the errno; the device can be in another state then, and the message names it.
    /// `ERR_UNSUPPORTED` if it cannot migrate, `ERR_CLOSED`.
    pub fn set_migration_state(&self, state: MigrationState) -> Result<()> {
        let open = read(&self.inner.open);
        let open = self.inner.expect_open(open.as_ref())?;
        // Locked until the session belongs to the new state.
        let mut session = lock(&open.migration);
        let before = ioctl::migration_state(open.fd.as_fd());
        let ended = match ioctl::set_migration_state(open.fd.as_fd(), state.number()) {
            Ok(Some(new)) => session.replace(Arc::new(new)),
            Ok(None) if state.has_session() => None,
            Ok(None) => session.take(),
            Err(errno) => {
                let now = ioctl::migration_state(open.fd.as_fd());
                let now = now.ok().and_then(MigrationState::from_number);
                let ended = session.take_if(|_| !now.is_some_and(MigrationState::has_session));
                drop(session);
                drop(ended);
                let before = before.ok().and_then(MigrationState::from_number);
                return Err(self.state_refused(errno, before, state, now));
            }
        };
        drop(session);
        drop(ended);
        Ok(())
    }

    /// Returns the estimated bytes of data that the device transfers when it is stopped.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if it cannot migrate, or before Linux 6.2; `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn migration_data_size(&self) -> Result<u64> {
        self.inner
            .with_fd(ioctl::migration_data_size)?
            .map_err(|errno| self.migration_error(errno, FEATURE, "reading the size of its data"))
    }

    /// Returns how much data can be read before the device is stopped.
    ///
    /// # Errors
    /// `ERR_MIGRATION_STATE` in a state other than `PRE_COPY` and `PRE_COPY_P2P`; `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn precopy_info(&self) -> Result<PreCopyInfo> {
        let session = self.session()?;
        let (initial, dirty) = ioctl::precopy_info(session.as_fd()).map_err(|errno| {
            let operation = "reading the amount of its data";
            match errno {
                Errno::EINVAL | Errno::ENOTTY => self.wrong_state(operation),
                _ => self.migration_error(errno, "ioctl(VFIO_MIG_GET_PRECOPY_INFO)", operation),
            }
        })?;
        Ok(PreCopyInfo { initial, dirty })
    }

    /// Returns the next data of the session, up to `limit` bytes and 16 MiB.
    ///
    /// No data means the end: the present one in `PRE_COPY` and `PRE_COPY_P2P`, the last one in `STOP_COPY`.
    ///
    /// # Errors
    /// `ERR_MIGRATION_STATE` in a state without data to read, `ERR_MIGRATION_DATA` with the errno, `ERR_CLOSED`.
    pub fn read_migration(&self, limit: usize) -> Result<Vec<u8>> {
        let session = self.session()?;
        let mut bytes = vec![0; limit.min(MAX_READ)];
        let count = uninterrupted(|| nix::unistd::read(&session, &mut bytes));
        let count = match count {
            // The present end of PRE_COPY.
            Err(Errno::ENOMSG) => 0,
            other => other.map_err(|errno| self.data_refused(errno, "read", "reading"))?,
        };
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes data to the session.
    ///
    /// # Errors
    /// `ERR_MIGRATION_STATE` in a state other than `RESUMING`; `ERR_MIGRATION_DATA` with the errno if the device
    /// rejects the data; `ERR_CLOSED`.
    pub fn write_migration(&self, bytes: &[u8]) -> Result<()> {
        let session = self.session()?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = uninterrupted(|| nix::unistd::write(&session, rest));
            let count = match written {
                Ok(0) => Err(Errno::EIO),
                other => other,
            }
            .map_err(|errno| self.data_refused(errno, "write", "writing"))?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns the session. A call that uses it can outlive the session, but not its file.
    fn session(&self) -> Result<Arc<OwnedFd>> {
        let open = read(&self.inner.open);
        let open = self.inner.expect_open(open.as_ref())?;
        let session = lock(&open.migration).clone();
        session.ok_or_else(|| self.wrong_state("transferring its data"))
    }

    fn state_refused(
        &self,
        errno: Errno,
        before: Option<MigrationState>,
        wanted: MigrationState,
        now: Option<MigrationState>,
    ) -> Error {
        if errno == Errno::ENOTTY {
            return self.migration_error(errno, FEATURE, "changing the migration state");
        }
        let name = &self.inner.name;
        let from = before.map_or_else(String::new, |state| format!(" from {state}"));
        let operation = format!("device {name}: changing its migration state{from} to {wanted}");
        let error = Error::os(ErrorCode::MigrationState, errno, FEATURE, operation);
        match now {
            Some(MigrationState::Error) => error.followed_by("it is in ERROR. Reset it"),
            Some(state) => error.followed_by(format_args!("it is in {state}")),
            None => error.followed_by("its state is unknown. Reset it"),
        }
    }

    fn data_refused(&self, errno: Errno, syscall: &'static str, verb: &str) -> Error {
        let operation = format!("device {}: {verb} its migration data", self.inner.name);
        // EBADF: a session for reading was written, or the reverse. ENODEV: the session has ended.
        let code = match errno {
            Errno::EBADF | Errno::ENODEV => ErrorCode::MigrationState,
            _ => ErrorCode::MigrationData,
        };
        Error::os(code, errno, syscall, operation)
    }

    fn wrong_state(&self, operation: &str) -> Error {
        let message = format!(
            "device {}: {operation} failed: its migration state does not allow it",
            self.inner.name
        );
        Error::new(ErrorCode::MigrationState, message)
    }

    fn migration_error(&self, errno: Errno, syscall: &'static str, operation: &str) -> Error {
        let code = match errno {
            Errno::ENOTTY => ErrorCode::Unsupported,
            _ => ErrorCode::System,
        };
        let operation = format!("device {}: {operation}", self.inner.name);
        Error::os(code, errno, syscall, operation)
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
