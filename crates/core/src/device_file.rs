//! Opens the files of VFIO and iommufd in `/dev`.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::{Error, ErrorCode, Result};

/// Opens a file for reading and writing. An error has the given code, and names the `operation`.
pub(crate) fn open_device_file(
    path: &str,
    code: ErrorCode,
    operation: impl std::fmt::Display,
) -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Error::os(code, errno, format!("open({path})"), operation)
    })
}
