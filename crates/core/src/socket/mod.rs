//! Unix domain sockets whose messages carry descriptors (`SCM_RIGHTS`).

mod rights;
mod unix_socket;

pub use rights::MAX_DESCRIPTORS;
pub use unix_socket::{Received, UnixSocket};
