//! Which addresses are leased, and how often: a count for every byte, kept as segments.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::Range;

/// More leases than can be counted: they are never released, as nobody knows which is the last.
const COUNTLESS: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
struct Segment {
    end: u64,
    /// At least 1.
    count: u64,
}

/// Counts of leases over a range of addresses. Costs O(log n) plus the segments touched.
#[derive(Debug, Default)]
pub(crate) struct LeaseCounts {
    segments: BTreeMap<u64, Segment>,
}

impl LeaseCounts {
    /// The first leased part of `range`.
    pub(crate) fn first_in(&self, range: &Range) -> Option<Range> {
        let before = self.segments.range(..range.start()).next_back();
        let from = self.segments.range(range.start()..range.end()).next();
        before.into_iter().chain(from).find_map(|(start, segment)| {
            Range::between(*start, segment.end).and_then(|leased| leased.intersection(range))
        })
    }

    /// Adds one lease of `range`.
    pub(crate) fn add(&mut self, range: &Range) {
        // Where nothing is leased, as where most leases come, there is nothing to split.
        let last = self.segments.range(..range.end()).next_back();
        if last.is_none_or(|(_, segment)| segment.end <= range.start()) {
            let (end, count) = (range.end(), 1);
            self.segments.insert(range.start(), Segment { end, count });
            return;
        }
        self.split(range.start());
        self.split(range.end());
        let mut gaps = Vec::new();
        let mut at = range.start();
        for (start, segment) in self.segments.range_mut(range.start()..range.end()) {
            gaps.extend(Range::between(at, *start));
            segment.count = segment.count.saturating_add(1);
            at = segment.end;
        }
        gaps.extend(Range::between(at, range.end()));
        for gap in gaps {
            self.segments.insert(
                gap.start(),
                Segment {
                    end: gap.end(),
                    count: 1,
                },
            );
        }
    }

    /// Takes one lease of `range` away, which was added before. Where some of `range` is not leased, which can't be,
    /// nothing changes: what is still counted stays leased for good, rather than that memory is released which a device
    /// may reach.
    pub(crate) fn remove(&mut self, range: &Range) {
        if let Entry::Occupied(only) = self.segments.entry(range.start())
            && only.get().end == range.end()
            && only.get().count == 1
        {
            only.remove();
            return;
        }
        if !self.is_leased(range) {
            return;
        }
        self.split(range.start());
        self.split(range.end());
        let mut gone = Vec::new();
        for (start, segment) in self.segments.range_mut(range.start()..range.end()) {
            match segment.count {
                COUNTLESS => {}
                0 | 1 => gone.push(*start),
                count => segment.count = count.saturating_sub(1),
            }
        }
        for start in gone {
            self.segments.remove(&start);
        }
        self.join(range.start());
        self.join(range.end());
    }

    /// Whether all of `range` is leased.
    fn is_leased(&self, range: &Range) -> bool {
        let mut at = range.start();
        let before = self.segments.range(..range.start()).next_back();
        let inside = self.segments.range(range.start()..range.end());
        for (start, segment) in before.into_iter().chain(inside) {
            if *start <= at {
                at = at.max(segment.end);
            }
        }
        at >= range.end()
    }

    fn split(&mut self, at: u64) {
        let Some((_, segment)) = self.segments.range_mut(..at).next_back() else {
            return;
        };
        if segment.end > at {
            let tail = *segment;
            segment.end = at;
            self.segments.insert(at, tail);
        }
    }

    /// Joins the segments that meet at `at` when they count the same, so that leases which come and
    /// go inside a lasting one leave no trace.
    fn join(&mut self, at: u64) {
        let Some(right) = self.segments.get(&at).copied() else {
            return;
        };
        if let Some((_, left)) = self.segments.range_mut(..at).next_back()
            && left.end == at
            && left.count == right.count
        {
            left.end = right.end;
            self.segments.remove(&at);
        }
    }

    #[cfg(test)]
    fn count_at(&self, at: u64) -> u64 {
        self.segments
            .range(..=at)
            .next_back()
            .filter(|(_, s)| s.end > at)
            .map_or(0, |(_, s)| s.count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_like_an_array(ops in prop::collection::vec((0_u64..60, 1_u64..20), 1..40), order in any::<u64>()) {
            let mut counts = LeaseCounts::default();
            let mut live: Vec<Range> = Vec::new();
            let mut model = [0_u64; 80];
            let mut seed = order;
            for (start, length) in ops {
                let range = Range::new(start, length).unwrap();
                counts.add(&range);
                live.push(range);
                for cell in start..start + length { model[usize::try_from(cell).unwrap()] += 1; }
                seed = seed.rotate_left(7) ^ start;
                if seed & 1 == 1 {
                    let index = usize::try_from(seed % (live.len() as u64)).unwrap();
                    let gone = live.swap_remove(index);
                    counts.remove(&gone);
                    for cell in gone.start()..gone.end() { model[usize::try_from(cell).unwrap()] -= 1; }
                }
                for (at, want) in model.iter().enumerate() {
                    prop_assert_eq!(counts.count_at(at as u64), *want);
                }
                let first = model.iter().position(|count| *count > 0).map(|at| at as u64);
                prop_assert_eq!(counts.first_in(&Range::new(0, 80).unwrap()).map(|r| r.start()), first);
            }
            for range in live { counts.remove(&range); }
            prop_assert!(counts.segments.is_empty());
        }
    }

    #[test]
    fn a_release_of_what_is_not_leased_changes_nothing() {
        let mut counts = LeaseCounts::default();
        let range = |start, length| Range::new(start, length).unwrap();
        counts.remove(&range(0, 10));
        counts.add(&range(10, 10));
        counts.add(&range(30, 10));
        for (start, length) in [(0, 20), (10, 20), (10, 30), (15, 20), (0, 100), (20, 10)] {
            counts.remove(&range(start, length));
            assert_eq!(
                [5, 10, 19, 25, 30, 39, 40].map(|at| counts.count_at(at)),
                [0, 1, 1, 0, 1, 1, 0]
            );
        }
        counts.remove(&range(10, 10));
        counts.remove(&range(30, 10));
        assert!(counts.segments.is_empty());
    }

    #[test]
    fn more_leases_than_can_be_counted_hold_for_good() {
        let mut counts = LeaseCounts::default();
        let range = Range::new(0, 10).unwrap();
        counts.add(&range);
        counts.segments.get_mut(&0).unwrap().count = u64::MAX - 1;
        counts.add(&range);
        counts.add(&range);
        for _ in 0..3 {
            counts.remove(&range);
        }
        assert_eq!(counts.count_at(0), u64::MAX);
        assert_eq!(counts.first_in(&range), Some(range));
    }

    #[test]
    fn transient_leases_leave_no_segments() {
        let mut counts = LeaseCounts::default();
        counts.add(&Range::new(0, 100).unwrap());
        for at in 1..90 {
            let range = Range::new(at, 5).unwrap();
            counts.add(&range);
            counts.remove(&range);
        }
        assert_eq!(counts.segments.len(), 1);
    }
}
