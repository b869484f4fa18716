//! Which addresses are leased, and how often: a count for every byte, kept as segments.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::Range;

#[derive(Debug, Clone, Copy)]
struct Segment {
    end: u64,
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

    /// Takes one lease of `range` away, which was added before.
    pub(crate) fn remove(&mut self, range: &Range) {
        if let Entry::Occupied(only) = self.segments.entry(range.start())
            && only.get().end == range.end()
            && only.get().count == 1
        {
            only.remove();
            return;
        }
        self.split(range.start());
        self.split(range.end());
        let mut gone = Vec::new();
        for (start, segment) in self.segments.range_mut(range.start()..range.end()) {
            segment.count = segment.count.saturating_sub(1);
            if segment.count == 0 {
                gone.push(*start);
            }
        }
        for start in gone {
            self.segments.remove(&start);
        }
        self.join(range.start());
        self.join(range.end());
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
