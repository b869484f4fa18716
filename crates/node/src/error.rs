//! Converts errors to JavaScript.

use napi::Status;
use peerdma_core::{Error, ErrorCode};

/// Formats an error as `CODE|ERRNO|SYSCALL|RANGE|text`; errno, system call and range can be empty. The range is
/// `0xSTART..0xEND`. Only the text may contain a bar.
pub(crate) fn reason(error: &Error) -> String {
    format!(
        "{}|{}|{}|{}|{}",
        error.code().as_str(),
        error.errno_name().unwrap_or_default(),
        error.syscall().unwrap_or_default(),
        error
            .range()
            .map(|range| range.to_string())
            .unwrap_or_default(),
        error.message()
    )
}

/// Converts an error to a JavaScript error.
pub(crate) fn to_js(error: Error) -> napi::Error {
    napi::Error::new(Status::GenericFailure, reason(&error))
}

/// Creates the error for an invalid argument.
pub(crate) fn invalid(message: impl Into<String>) -> napi::Error {
    to_js(Error::new(ErrorCode::InvalidArgument, message))
}

/// Creates the error for the use of a closed object.
pub(crate) fn closed(subject: &str) -> napi::Error {
    to_js(Error::new(
        ErrorCode::Closed,
        format!("the {subject} is closed"),
    ))
}
