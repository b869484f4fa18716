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
    /// so a record that overlaps the new one is stale as a whole. Returns what the stale records kept, to
    /// be dropped outside of locks.
    #[must_use]
    pub(crate) fn insert(&mut self, range: Range, keeps: T) -> Vec<T> {
        let stale = self.take_overlapping(&range);
        self.records.insert(range.start(), (range.end(), keeps));
        stale
    }

    fn take_overlapping(&mut self, range: &Range) -> Vec<T> {
        let before = self.records.range(..range.start()).next_back();
        let before = before.filter(|(_, (end, _))| *end > range.start());
        let within = self.records.range(range.start()..range.end());
        let starts: Vec<u64> = before
            .into_iter()
            .chain(within)
            .map(|(start, _)| *start)
            .collect();
        starts
            .iter()
            .filter_map(|start| self.records.remove(start))
            .map(|(_, keeps)| keeps)
            .collect()
    }

    /// How many bytes are mapped by mappings that lie wholly in `range`.
    pub(crate) fn bytes_within(&self, range: &Range) -> u64 {
        self.within(range).fold(0, |sum, (start, end)| {
            sum.saturating_add(end.saturating_sub(start))
        })
    }

    /// Takes out the mappings that lie wholly in `range`; costs what they are many.
    pub(crate) fn take_within(&mut self, range: &Range) -> Vec<T> {
        let starts: Vec<u64> = self.within(range).map(|(start, _)| start).collect();
        starts
            .iter()
            .filter_map(|start| self.records.remove(start))
            .map(|(_, keeps)| keeps)
            .collect()
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

    #[test]
    fn a_range_cuts_what_it_holds_in_part() {
        let mut mappings = Mappings::default();
        for (start, length) in [(0x1000, 0x2000), (0x5000, 0x1000), (0x8000, 0x2000)] {
            assert!(
                mappings
                    .insert(Range::new(start, length).unwrap(), ())
                    .is_empty()
            );
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
            let old = mappings.insert(Range::new(start, length).unwrap(), start);
            assert_eq!(old, []);
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
        assert_eq!(
            mappings.take_within(&Range::new(0x2000, 0x3000).unwrap()),
            [0x3000]
        );
        assert_eq!(mappings.len(), 2);
        let longer = Range::new(0x8000, 0x2000).unwrap();
        assert_eq!(mappings.insert(longer, 0x8001), [0x8000]);
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
            assert_eq!(mappings.insert(range(start, length), start), []);
        }
        // Inside one record: what is mapped there now can be unmapped, whatever was on record around it.
        assert_eq!(mappings.insert(range(0x3000, 0x1000), 0x3000), [0x1000]);
        assert_eq!(mappings.cut_by(&range(0x3000, 0x1000)), None);
        // Across others, and touching one.
        assert_eq!(
            mappings.insert(range(0x9800, 0x2800), 0x9800),
            [0x9000, 0xb000]
        );
        assert_eq!(mappings.insert(range(0xf000, 0x1000), 0xf000), []);
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x1000 + 0x2800 + 0x1000 + 0x1000
        );
        assert_eq!(mappings.take_all(), [0x3000, 0x9800, 0xf000, 0x10000]);
    }
}
