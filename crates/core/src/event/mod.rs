//! Eventfds, which the kernel, hypervisors and this process signal. A thread waits for them and for sockets.

mod eventfd;
mod watcher;

pub use eventfd::EventFd;
pub use watcher::{Readiness, Watcher};
