//! Releases memory, and whatever of VFIO and iommufd nobody closed, on a thread of its own. The kernel takes some
//! 200 ms for each GiB, and about as long to reset a device: neither an event loop nor a finaliser may wait for that.
//!
//! Garbage is dropped in the order in which it was left. What a drop leaves in turn goes to the end of the queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;

use crate::locked::lock;
use crate::{ErrorCode, Result};

/// Garbage of fewer bytes than this is dropped at once, which takes a few milliseconds at most.
pub(crate) const LARGE: u64 = 16 << 20;

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    garbage: VecDeque::new(),
    running: false,
});
static SETTLED: Condvar = Condvar::new();

#[cfg(test)]
thread_local! {
    /// How many times this thread has left garbage to the dropper's thread.
    pub(crate) static HANDED_OVER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

struct Queue {
    garbage: VecDeque<Box<dyn Send>>,
    /// Whether the thread runs. It ends when the queue is empty, and does not keep the process alive.
    running: bool,
}

/// Drops `garbage`, which holds about `bytes` bytes of memory: at once if that is little, otherwise on the thread. The
/// caller must hold no lock that the drop takes.
pub(crate) fn drop_memory(bytes: u64, garbage: impl Send + 'static) {
    if bytes < LARGE {
        drop(garbage);
    } else {
        drop_later(garbage);
    }
}

/// Drops `garbage` on the thread.
pub(crate) fn drop_later(garbage: impl Send + 'static) {
    #[cfg(test)]
    HANDED_OVER.set(HANDED_OVER.get().saturating_add(1));
    #[cfg(test)]
    let garbage = crate::fake_kernel::Scripted::new(garbage);
    let mut queue = lock(&QUEUE);
    queue.garbage.push_back(Box::new(garbage));
    let starts = !queue.running;
    queue.running = true;
    drop(queue);
    let thread = || thread::Builder::new().name("peerdma-dropper".into());
    if starts && thread().spawn(run).is_err() {
        run(); // the system has no thread left
    }
}

/// Waits until all garbage is dropped.
pub fn settle() {
    let mut queue = lock(&QUEUE);
    while queue.running {
        queue = SETTLED.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Waits until all garbage is dropped, if as many as `bytes` bytes of memory are about to be allocated: they may be the
/// same pages. So garbage never adds up to more than was released between two such calls. The caller must hold no lock
/// that a drop takes.
pub(crate) fn settle_before(bytes: u64) {
    if bytes >= LARGE {
        settle();
    }
}

/// Makes an attempt. If it fails because something is in use, makes another after all garbage is dropped: a forgotten
/// handle may be what uses it. The caller must hold no lock that a drop takes.
pub(crate) fn retry_settled<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    attempt().or_else(|error| {
        let in_use = error.code() == ErrorCode::DeviceInUse || error.errno() == Some(Errno::EBUSY);
        if !in_use || !lock(&QUEUE).running {
            return Err(error);
        }
        settle();
        attempt()
    })
}

fn run() {
    while let Some(garbage) = next() {
        // The panic hook has reported a panic. The rest of the queue is dropped nevertheless.
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

/// Blocks the thread until it is dropped: garbage that is left meanwhile waits.
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

    /// Reports the thread that drops it.
    struct Witness(Sender<ThreadId>);

    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn large_garbage_is_dropped_on_another_thread_and_small_garbage_at_once() {
        let (sender, receiver) = channel();
        let here = thread::current().id();
        drop_memory(LARGE - 1, Witness(sender.clone()));
        assert_eq!(receiver.try_recv(), Ok(here));
        for _ in 0..100 {
            drop_memory(LARGE, Witness(sender.clone()));
        }
        settle();
        let threads: Vec<ThreadId> = receiver.try_iter().collect();
        assert_eq!(threads.len(), 100, "all are gone when it has settled");
        assert!(threads.iter().all(|id| *id != here));
    }

    #[test]
    fn garbage_that_drops_more_garbage_settles_as_one() {
        struct Nested(Sender<ThreadId>);
        impl Drop for Nested {
            fn drop(&mut self) {
                drop_later(Witness(self.0.clone()));
            }
        }
        let (sender, receiver) = channel();
        drop_later(Nested(sender));
        settle();
        assert!(receiver.try_recv().is_ok());
    }
}
