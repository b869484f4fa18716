//! The dirty log of memory slots: the pages that the guest has written.

use std::collections::HashMap;

use super::slots::PAGE;
use crate::bitmap::words_of;
use crate::range::to_usize;
use crate::{Range, Result};

/// Pages that the kernel has reported and no caller has received, by the number of their slot.
///
/// The kernel clears its log of a slot when it is read. If the log of another slot cannot be read then, these pages are
/// kept for the next call.
#[derive(Debug, Default)]
pub(super) struct DirtyLog(HashMap<u32, Vec<u64>>);

impl DirtyLog {
    /// Returns a bit for each page of `range`, set if the page was written since the last call.
    ///
    /// `slots` are those in the range. `read` returns the kernel's log of one.
    pub(super) fn take(
        &mut self,
        range: &Range,
        slots: &[(Range, u32)],
        mut read: impl FnMut(&Range, u32) -> Result<Vec<u64>>,
    ) -> Result<Vec<u64>> {
        let mut bitmap = vec![0; words_of(range, PAGE)?];
        for (of_slot, number) in slots {
            let log = read(of_slot, *number)?;
            let kept = self.0.entry(*number).or_insert_with(|| vec![0; log.len()]);
            for (kept, new) in kept.iter_mut().zip(log) {
                *kept |= new;
            }
        }
        for (of_slot, number) in slots {
            let first = of_slot.start().saturating_sub(range.start()) / PAGE;
            let log = self.0.remove(number).unwrap_or_default();
            set_bits(&mut bitmap, first, &log);
        }
        Ok(bitmap)
    }

    /// Drops the pages of a slot that is removed.
    pub(super) fn forget(&mut self, number: u32) {
        self.0.remove(&number);
    }

    /// Drops all pages.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Sets the bits of `log` in `bitmap`, from bit `first` on.
fn set_bits(bitmap: &mut [u64], first: u64, log: &[u64]) {
    let (word, shift) = (to_usize(first / 64).unwrap_or(usize::MAX), first % 64);
    let mut target = bitmap.iter_mut().skip(word);
    let mut carry = 0;
    for bits in log.iter().chain(std::iter::once(&0)) {
        let Some(word) = target.next() else { return };
        *word |= carry | bits << shift;
        carry = if shift == 0 {
            0
        } else {
            bits >> (64_u64.saturating_sub(shift))
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Error, ErrorCode};

    #[test]
    fn keeps_the_pages_of_a_slot_if_the_log_of_another_cannot_be_read() {
        let range = Range::new(0, 8 * PAGE).unwrap();
        let half = |start: u64| Range::new(start * PAGE, 4 * PAGE).unwrap();
        let slots = [(half(0), 7), (half(4), 3)];
        let mut log = DirtyLog::default();
        let failed = log.take(&range, &slots, |_, number| match number {
            7 => Ok(vec![0b01]),
            _ => Err(Error::new(ErrorCode::System, "no log")),
        });
        assert_eq!(failed.unwrap_err().code(), ErrorCode::System);
        let mut take = |of_first, of_second| {
            let read = |_: &Range, number| Ok(vec![if number == 7 { of_first } else { of_second }]);
            log.take(&range, &slots, read).unwrap()
        };
        assert_eq!(take(0b10, 0b1), [0b1_0011]);
        assert_eq!(take(0, 0), [0], "each page is returned once");
    }

    #[test]
    fn drops_the_pages_of_a_removed_slot() {
        let range = Range::new(0, PAGE).unwrap();
        let mut log = DirtyLog::default();
        let fails = |_: &Range, number| match number {
            0 => Ok(vec![1]),
            _ => Err(Error::new(ErrorCode::System, "no log")),
        };
        log.take(&range, &[(range, 0), (range, 1)], fails)
            .unwrap_err();
        log.forget(0);
        assert_eq!(
            log.take(&range, &[(range, 0)], |_, _| Ok(vec![0])).unwrap(),
            [0]
        );
    }

    #[test]
    fn sets_the_bits_of_a_log_at_any_position() {
        for first in [0_u16, 1, 63, 64, 65, 100] {
            let mut bitmap = [0; 4];
            set_bits(&mut bitmap, u64::from(first), &[1 | 1 << 63, 1]);
            let set: Vec<u16> = (0..256_u16)
                .filter(|bit| {
                    bitmap
                        .get(usize::from(*bit) / 64)
                        .is_some_and(|word| word >> (bit % 64) & 1 == 1)
                })
                .collect();
            assert_eq!(set, [first, first + 63, first + 64]);
        }
    }

    #[test]
    fn drops_bits_past_the_end() {
        let mut bitmap = [0; 1];
        set_bits(&mut bitmap, 60, &[u64::MAX, u64::MAX]);
        assert_eq!(bitmap, [0xf << 60]);
    }
}
