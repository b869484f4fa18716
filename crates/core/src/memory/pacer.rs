//! Pauses of a thread that takes the lock of the process's mappings again and again.

use std::thread;
use std::time::{Duration, Instant};

/// After this long a thread pauses.
const SLICE: Duration = Duration::from_millis(2);
/// Without pauses a thread takes the lock of the process's mappings again before one that waits for it has woken up:
/// the event loop waited for 50 ms, and waits for 5 ms with them (docs/performance.md).
const PAUSE: Duration = Duration::from_micros(50);

/// Lets other threads have the lock of the process's mappings from time to time.
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

    /// To be called after each call that takes the lock.
    pub(super) fn pace(&mut self) {
        if self.began.elapsed() >= SLICE {
            thread::sleep(PAUSE);
            self.began = Instant::now();
        }
    }
}
