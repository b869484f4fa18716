//! What an IOMMU address space has mapped, by IOVA.

use std::collections::BTreeMap;

use crate::Range;

/// Records of mappings which never overlap; `T` is what each of them keeps alive.
#[derive(Debug)]
pub(crate) struct Mappings<T> {
    records: BTreeMap<u64, (u64, T)>,
}

impl<T> Default for Mappings<T> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
        }
    }
}

impl<T> Mappings<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Records a mapping that the kernel has accepted. The kernel refuses overlaps and never cuts a mapping,
    /// so a record that overlaps the new one is stale as a whole. What stale records kept goes to `gone`, to be dropped
    /// outside of locks.
    pub(crate) fn insert(&mut self, range: Range, keeps: T, gone: &mut Vec<T>) {
        self.take_overlapping(&range, gone);
        self.records.insert(range.start(), (range.end(), keeps));
    }

    fn take_overlapping(&mut self, range: &Range, gone: &mut Vec<T>) {
        // The last first: what ends before the range ends the search.
        while let Some((start, (end, _))) = self.records.range(..range.end()).next_back()
            && *end > range.start()
        {
            let start = *start;
            gone.extend(self.records.remove(&start).map(|(_, keeps)| keeps));
        }
    }

    /// How many bytes are mapped by mappings that lie wholly in `range`.
    pub(crate) fn bytes_within(&self, range: &Range) -> u64 {
        if self.is_exact(range) {
            return range.len();
        }
        self.within(range).fold(0, |sum, (start, end)| {
            sum.saturating_add(end.saturating_sub(start))
        })
    }

    /// Takes out the mappings that lie wholly in `range`; costs what they are many. What they kept goes to `gone`, to
    /// be dropped outside of locks.
    pub(crate) fn take_within(&mut self, range: &Range, gone: &mut Vec<T>) {
        if self.is_exact(range) {
            gone.extend(self.records.remove(&range.start()).map(|(_, keeps)| keeps));
            return;
        }
        loop {
            let first = self.within(range).next();
            let Some((start, _)) = first else { break };
            gone.extend(self.records.remove(&start).map(|(_, keeps)| keeps));
        }
    }

    /// The mappings that lie wholly in `range`.
    pub(crate) fn ranges_within(&self, range: &Range) -> Vec<Range> {
        self.within(range)
            .filter_map(|(start, end)| Range::between(start, end))
            .collect()
    }

    /// A mapping that lies in `range` with a part of it alone.
    pub(crate) fn cut_by(&self, range: &Range) -> Option<Range> {
        let before = self.records.range(..range.start()).next_back();
        let last = self.records.range(range.start()..range.end()).next_back();
        [before, last]
            .into_iter()
            .flatten()
            .filter_map(|(start, (end, _))| Range::between(*start, *end))
            .find(|one| one.intersection(range).is_some() && !range.contains(one))
    }

    /// Takes out all of them.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        std::mem::take(&mut self.records)
            .into_values()
            .map(|(_, keeps)| keeps)
            .collect()
    }

    /// Whether one mapping has exactly that range.
    fn is_exact(&self, range: &Range) -> bool {
        matches!(self.records.get(&range.start()), Some((end, _)) if *end == range.end())
    }

    fn within(&self, range: &Range) -> impl Iterator<Item = (u64, u64)> {
        let last = range.end();
        self.records
            .range(range.start()..range.end())
            .map(|(start, (end, _))| (*start, *end))
            .filter(move |(_, end)| *end <= last)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn insert<T>(mappings: &mut Mappings<T>, start: u64, length: u64, keeps: T) -> Vec<T> {
        let mut gone = Vec::new();
        mappings.insert(Range::new(start, length).unwrap(), keeps, &mut gone);
        gone
    }

    #[test]
    fn a_range_cuts_what_it_holds_in_part() {
        let mut mappings = Mappings::default();
        for (start, length) in [(0x1000, 0x2000), (0x5000, 0x1000), (0x8000, 0x2000)] {
            assert_eq!(insert(&mut mappings, start, length, ()), []);
        }
        let cut = |start, length| mappings.cut_by(&Range::new(start, length).unwrap());
        let first = Range::new(0x1000, 0x2000).unwrap();
        let last = Range::new(0x8000, 0x2000).unwrap();
        for (start, length, which) in [
            (0x1000, 0x1000, Some(first)),
            (0x2000, 0x1000, Some(first)),
            (0, 0x2000, Some(first)),
            (0x2000, 0x4000, Some(first)),
            (0x4000, 0x5000, Some(last)),
            (0x8800, 0x100, Some(last)),
            (0, 0x1000, None),
            (0x1000, 0x2000, None),
            (0x3000, 0x5000, None),
            (0, 0x10000, None),
        ] {
            assert_eq!(cut(start, length), which, "{start:#x}+{length:#x}");
        }
        let within = mappings.ranges_within(&Range::new(0x2000, 0x9000).unwrap());
        assert_eq!(within, [Range::new(0x5000, 0x1000).unwrap(), last]);
    }

    #[test]
    fn only_whole_mappings_count() {
        let mut mappings = Mappings::default();
        for (start, length) in [(0x1000, 0x1000), (0x3000, 0x2000), (0x8000, 0x1000)] {
            assert_eq!(insert(&mut mappings, start, length, start), []);
        }
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x4000
        );
        assert_eq!(
            mappings.bytes_within(&Range::new(0, 0x4000).unwrap()),
            0x1000
        );
        assert_eq!(
            mappings.bytes_within(&Range::new(0x1800, 0x10000).unwrap()),
            0x3000
        );
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x4000
        );
        let mut gone = Vec::new();
        mappings.take_within(&Range::new(0x2000, 0x3000).unwrap(), &mut gone);
        assert_eq!(gone, [0x3000]);
        assert_eq!(mappings.len(), 2);
        assert_eq!(insert(&mut mappings, 0x8000, 0x2000, 0x8001), [0x8000]);
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x3000
        );
        assert_eq!(mappings.take_all(), [0x1000, 0x8001]);
        assert_eq!(mappings.len(), 0);
    }

    #[test]
    fn a_new_mapping_replaces_every_record_it_overlaps() {
        let range = |start, length| Range::new(start, length).unwrap();
        let mut mappings = Mappings::default();
        for (start, length) in [
            (0x1000, 0x8000),
            (0x9000, 0x1000),
            (0xb000, 0x2000),
            (0x10000, 0x1000),
        ] {
            assert_eq!(insert(&mut mappings, start, length, start), []);
        }
        // Inside one record: what is mapped there now can be unmapped, whatever was on record around it.
        assert_eq!(insert(&mut mappings, 0x3000, 0x1000, 0x3000), [0x1000]);
        assert_eq!(mappings.cut_by(&range(0x3000, 0x1000)), None);
        // Across others, and touching one.
        assert_eq!(
            insert(&mut mappings, 0x9800, 0x2800, 0x9800),
            [0xb000, 0x9000]
        );
        assert_eq!(insert(&mut mappings, 0xf000, 0x1000, 0xf000), []);
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x1000 + 0x2800 + 0x1000 + 0x1000
        );
        assert_eq!(mappings.take_all(), [0x3000, 0x9800, 0xf000, 0x10000]);
    }
}
