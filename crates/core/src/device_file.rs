//! Opens files below `/dev`.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::{Error, ErrorCode, Result};

/// Opens a file for reading and writing. `code` and `operation` are those of the error.
pub(crate) fn open(path: &str, code: ErrorCode, operation: impl Display) -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Error::os(code, errno, format!("open({path})"), operation)
    })
}
