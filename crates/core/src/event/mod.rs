//! Events between the kernel, hypervisors and this process: eventfds, and a thread that waits for them.

mod eventfd;
mod watcher;

pub use eventfd::EventFd;
pub use watcher::Watcher;
