//! Releases memory, and the VFIO and iommufd objects that nobody closed, on a separate thread. The kernel takes about
//! 200 ms to release each GiB, and about as long to reset a device: too long for an event loop or a finaliser.
//!
//! Garbage is dropped in the order in which it is queued. Garbage that a drop creates goes to the end of the queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;

use crate::locked::lock;
use crate::{ErrorCode, Result};

/// Garbage of fewer bytes is dropped at once, which takes a few milliseconds at most.
pub(crate) const LARGE: u64 = 16 << 20;

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    garbage: VecDeque::new(),
    running: false,
});
static SETTLED: Condvar = Condvar::new();

#[cfg(test)]
thread_local! {
    /// The number of times that this thread has queued garbage.
    pub(crate) static QUEUED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

struct Queue {
    garbage: VecDeque<Box<dyn Send>>,
    /// Whether the thread runs. It ends when the queue is empty, and does not keep the process alive.
    running: bool,
}

/// Drops `garbage`: on the thread if it holds much memory, otherwise at once. It holds about `bytes` bytes. The caller
/// must not hold a lock that the drop takes.
pub(crate) fn drop_memory(bytes: u64, garbage: impl Send + 'static) {
    if bytes < LARGE {
        drop(garbage);
    } else {
        drop_later(garbage);
    }
}

/// Queues `garbage` for the thread.
pub(crate) fn drop_later(garbage: impl Send + 'static) {
    #[cfg(test)]
    QUEUED.set(QUEUED.get().saturating_add(1));
    #[cfg(test)]
    let garbage = crate::fake_kernel::Scripted::new(garbage);
    let mut queue = lock(&QUEUE);
    queue.garbage.push_back(Box::new(garbage));
    let starts = !queue.running;
    queue.running = true;
    drop(queue);
    let thread = || thread::Builder::new().name("peerdma-dropper".into());
    if starts && thread().spawn(run).is_err() {
        run(); // the system cannot create a thread
    }
}

/// Waits until the queue is empty.
pub fn flush() {
    let mut queue = lock(&QUEUE);
    while queue.running {
        queue = SETTLED.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Waits until the queue is empty if `bytes`, the size of the next allocation, is large. So garbage never exceeds
/// what is released between two such calls. The caller must not hold a lock that a drop takes.
pub(crate) fn flush_before(bytes: u64) {
    if bytes >= LARGE {
        flush();
    }
}

/// Runs `attempt`. If it fails because something is in use, waits until the queue is empty and runs it again: an
/// unclosed handle in the queue may be the user. The caller must not hold a lock that a drop takes.
pub(crate) fn retry_after_flush<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    attempt().or_else(|error| {
        let in_use = error.code() == ErrorCode::DeviceInUse || error.errno() == Some(Errno::EBUSY);
        if !in_use || !lock(&QUEUE).running {
            return Err(error);
        }
        flush();
        attempt()
    })
}

fn run() {
    while let Some(garbage) = next() {
        // A panic was reported by the panic hook. The thread still drops the rest of the queue.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(garbage)));
    }
}

fn next() -> Option<Box<dyn Send>> {
    let mut queue = lock(&QUEUE);
    let garbage = queue.garbage.pop_front();
    if garbage.is_none() {
        queue.running = false;
        SETTLED.notify_all();
    }
    garbage
}

/// Blocks the dropper's thread until this is dropped: queued garbage waits.
#[cfg(test)]
pub(crate) struct Gate {
    _opens: std::sync::mpsc::Sender<()>,
}

#[cfg(test)]
impl Gate {
    pub(crate) fn close() -> Self {
        struct Blocks(std::sync::mpsc::Receiver<()>);
        impl Drop for Blocks {
            fn drop(&mut self) {
                let _ = self.0.recv(); // which fails when the sender is dropped
            }
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        drop_later(Blocks(receiver));
        Self { _opens: sender }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;

    use super::*;

    /// Sends the id of the thread that drops it.
    struct Witness(Sender<ThreadId>);

    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn drops_large_garbage_on_another_thread_and_small_garbage_at_once() {
        let (sender, receiver) = channel();
        let here = thread::current().id();
        drop_memory(LARGE - 1, Witness(sender.clone()));
        assert_eq!(receiver.try_recv(), Ok(here));
        for _ in 0..100 {
            drop_memory(LARGE, Witness(sender.clone()));
        }
        flush();
        let threads: Vec<ThreadId> = receiver.try_iter().collect();
        assert_eq!(threads.len(), 100, "flush waits for all garbage");
        assert!(threads.iter().all(|id| *id != here));
    }

    #[test]
    fn flush_waits_for_garbage_that_drops_more_garbage() {
        struct Nested(Sender<ThreadId>);
        impl Drop for Nested {
            fn drop(&mut self) {
                drop_later(Witness(self.0.clone()));
            }
        }
        let (sender, receiver) = channel();
        drop_later(Nested(sender));
        flush();
        assert!(receiver.try_recv().is_ok());
    }
}
