//! The one place where a failure becomes a JavaScript error.

use napi::Status;
use peerdma_core::{Error, ErrorCode};

/// `CODE|ERRNO|SYSCALL|RANGE|text`; all but the code and the text are empty where there are none.
/// The range is `0xSTART..0xEND`. Only the text may contain a bar.
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

/// As a JavaScript error.
pub(crate) fn to_js(error: Error) -> napi::Error {
    napi::Error::new(Status::GenericFailure, reason(&error))
}

/// An argument that is not what it should be.
pub(crate) fn invalid(message: impl Into<String>) -> napi::Error {
    to_js(Error::new(ErrorCode::InvalidArgument, message))
}

/// Use of something closed.
pub(crate) fn closed(what: &str) -> napi::Error {
    to_js(Error::new(
        ErrorCode::Closed,
        format!("the {what} is closed"),
    ))
}
