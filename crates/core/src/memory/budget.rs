//! The budget of memory mappings that this process may still make.
//!
//! The kernel limits a process to `vm.max_map_count` mappings. At the limit, even unmapping a part of a mapping
//! fails, and V8 aborts the process when it cannot allocate memory. So this crate stops at three quarters of the
//! limit, counted for all threads of the process together.
//!
//! The kernel merges adjoining mappings, so the tracked number is an upper bound. When the bound reaches a threshold,
//! the mappings are counted in `/proc/self/maps`, and the threshold moves to half of the remaining budget. So the
//! cost of a count is spread over as many operations, and mappings that V8 or the allocator made meanwhile are
//! counted.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::locked::lock;
use crate::{Error, ErrorCode, Result};

/// The kernel's default limit.
const DEFAULT: usize = 65_530;
/// The time for which a refusal is repeated without a new count.
const REPEAT: Duration = Duration::from_millis(50);

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger::new());

/// Reserves `more` mappings. Call it before the system calls that make them, with no lock held except that of the
/// object they are for.
///
/// # Errors
/// `ERR_MAPPING_LIMIT`.
pub(super) fn charge(more: usize) -> Result<()> {
    if more == 0 {
        return Ok(());
    }
    lock(&LEDGER).charge(more, allowed(), Instant::now, count_mappings)
}

/// Releases the budget of removed mappings; `fewer` must not exceed their real number.
pub(super) fn credit(fewer: usize) {
    if fewer > 0 {
        lock(&LEDGER).credit(fewer);
    }
}

/// Returns `vm.max_map_count`, as of the first call.
fn allowed() -> usize {
    static ALLOWED: OnceLock<usize> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        text.and_then(|text| text.trim().parse().ok())
            .unwrap_or(DEFAULT)
    })
}

/// Counts the mappings of the process: one per line.
fn count_mappings() -> Option<usize> {
    use std::io::Read;
    let mut maps = std::fs::File::open("/proc/self/maps").ok()?;
    let mut buffer = vec![0; 1 << 16];
    let mut lines = 0_usize;
    loop {
        let read = match maps.read(&mut buffer) {
            Ok(0) => return Some(lines),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        lines = lines.saturating_add(bytes.iter().filter(|byte| **byte == b'\n').count());
    }
}

#[derive(Debug)]
struct Ledger {
    /// An upper bound: the last count, plus mappings made and minus mappings removed since.
    bound: usize,
    /// The bound that requires a new count.
    count_at: usize,
    /// The time and count of the last refusal, if no mapping was removed since.
    refused: Option<(Instant, usize)>,
}

impl Ledger {
    const fn new() -> Self {
        Self {
            bound: 0,
            count_at: 0,
            refused: None,
        }
    }

    fn charge(
        &mut self,
        more: usize,
        allowed: usize,
        now: impl Fn() -> Instant,
        count: impl FnOnce() -> Option<usize>,
    ) -> Result<()> {
        let bound = self.bound.saturating_add(more);
        if bound <= self.count_at {
            self.bound = bound;
            return Ok(());
        }
        let limit = allowed.saturating_sub(allowed / 4);
        if let Some((when, present)) = self.refused
            && now().saturating_duration_since(when) < REPEAT
            && present.saturating_add(more) > limit
        {
            return Err(refusal(present, allowed, limit));
        }
        // Without a count, the bound is the best estimate.
        let present = count().unwrap_or(self.bound);
        let room = limit.saturating_sub(present);
        self.bound = present;
        self.count_at = present.saturating_add(room.div_ceil(2));
        if more > room {
            self.refused = Some((now(), present));
            return Err(refusal(present, allowed, limit));
        }
        self.refused = None;
        self.bound = present.saturating_add(more);
        self.count_at = self.count_at.max(self.bound);
        Ok(())
    }

    fn credit(&mut self, fewer: usize) {
        self.bound = self.bound.saturating_sub(fewer);
        self.refused = None;
    }
}

fn refusal(present: usize, allowed: usize, limit: usize) -> Error {
    let message = format!(
        "memory mappings: reservation failed: the process has {present} of its {limit} mappings \
                  (three quarters of vm.max_map_count, {allowed}). Use fewer, larger or adjoining mappings, or raise \
                  the limit (sysctl vm.max_map_count)"
    );
    Error::new(ErrorCode::MappingLimit, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn counts_rarely_and_includes_mappings_of_others() {
        let (real, counts) = (Cell::new(1_000_usize), Cell::new(0));
        let count = || {
            counts.set(counts.get() + 1);
            Some(real.get())
        };
        let time = Cell::new(Instant::now());
        let clock = || time.get();
        let mut ledger = Ledger::new();
        // Nine of ten charged mappings merge.
        for made in 0..100_000_usize {
            ledger.charge(1, 65_530, clock, count).unwrap();
            real.set(1_000 + made / 10);
        }
        assert!(counts.get() < 10, "{}", counts.get());
        // Others reach the limit.
        real.set(60_000);
        let refused = (0..30_000).find_map(|_| ledger.charge(1, 65_530, clock, count).err());
        let error = refused.unwrap();
        assert_eq!(
            (error.code(), error.errno()),
            (ErrorCode::MappingLimit, None)
        );
        for part in ["60000", "65530", "49148", "sysctl vm.max_map_count"] {
            assert!(error.message().contains(part), "{error}");
        }
        // A refusal is repeated without a count until a mapping is removed.
        let before = counts.get();
        assert!(ledger.charge(2, 65_530, clock, count).is_err());
        assert_eq!(counts.get(), before);
        // A mapping can take the place of a removed one.
        ledger.credit(2);
        ledger.charge(2, 65_530, clock, count).unwrap();
        assert_eq!(counts.get(), before);
        // The next count comes after a while.
        assert!(ledger.charge(2, 65_530, clock, count).is_err());
        let before = counts.get();
        assert!(ledger.charge(2, 65_530, clock, count).is_err());
        assert_eq!(counts.get(), before);
        time.set(time.get() + REPEAT);
        assert!(ledger.charge(2, 65_530, clock, count).is_err());
        assert_eq!(counts.get(), before + 1);
        time.set(time.get() + REPEAT);
        let before = counts.get();
        real.set(10_000);
        ledger.charge(2, 65_530, clock, count).unwrap();
        assert_eq!(counts.get(), before + 1);
    }

    #[test]
    fn never_exceeds_three_quarters_of_the_limit() {
        let real = Cell::new(90_usize);
        let mut ledger = Ledger::new();
        let mut made = 0;
        while ledger
            .charge(2, 1_000, Instant::now, || Some(real.get()))
            .is_ok()
        {
            real.set(real.get() + 2);
            made += 2;
        }
        assert_eq!(real.get(), 750);
        for _ in 0..made {
            ledger.credit(1);
            real.set(real.get() - 1);
        }
        ledger.charge(100, 1_000, Instant::now, || None).unwrap();
    }

    #[test]
    fn counts_the_mappings_of_this_process() {
        let lines = std::fs::read_to_string("/proc/self/maps").unwrap();
        let there = count_mappings().unwrap();
        assert!(there.abs_diff(lines.lines().count()) < 100, "{there}");
        assert!(allowed() > 1_000);
    }
}
