//! Pauses a thread that often takes the kernel's lock of the process's mappings (`mmap_lock`).

use std::thread;
use std::time::{Duration, Instant};

/// The time after which a thread pauses.
const SLICE: Duration = Duration::from_millis(2);
/// The length of a pause. Without pauses, a thread takes the lock again before a waiting thread has woken up: the
/// event loop waited for 50 ms, and waits for 5 ms with them (docs/performance.md).
const PAUSE: Duration = Duration::from_micros(50);

/// Gives other threads a chance to take the lock of the process's mappings.
#[derive(Debug)]
pub(super) struct Pacer {
    began: Instant,
}

impl Pacer {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Pauses if it is time to; call it after each call that takes the lock.
    pub(super) fn pace(&mut self) {
        if self.began.elapsed() >= SLICE {
            thread::sleep(PAUSE);
            self.began = Instant::now();
        }
    }
}
