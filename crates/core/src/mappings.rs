//! Records of the mappings of an IOMMU address space, by IOVA.

use crate::Range;
use crate::range_list::{Position, RangeList, Ranged};

/// Records of mappings, which never overlap. `T` is the owner of the mapped memory. Owners of removed records are
/// added to a collection, for the caller to drop after it has released its locks.
#[derive(Debug)]
pub(crate) struct Mappings<T> {
    records: RangeList<Record<T>>,
    /// The position at which the last search ended: batches are in the order of their IOVAs.
    near: Position,
}

#[derive(Debug)]
struct Record<T> {
    range: Range,
    owner: T,
}

impl<T> Ranged for Record<T> {
    fn range(&self) -> Range {
        self.range
    }
}

impl<T> Default for Mappings<T> {
    fn default() -> Self {
        Self {
            records: RangeList::default(),
            near: Position::default(),
        }
    }
}

impl<T> Mappings<T> {
    /// The number of records.
    pub(crate) const fn len(&self) -> usize {
        self.records.len()
    }

    /// Records a mapping that the kernel has made. The kernel rejects overlaps and never splits a mapping, so any
    /// record that overlaps the new one is stale as a whole.
    pub(crate) fn insert(&mut self, range: Range, owner: T, removed: &mut impl Extend<T>) {
        let last = self.records.last();
        if last.is_some_and(|last| last.range.end() > range.start()) {
            self.take_overlapping(&range, removed);
        }
        self.records.insert(Record { range, owner });
    }

    fn take_overlapping(&mut self, range: &Range, removed: &mut impl Extend<T>) {
        self.near = self.records.find(range.start(), self.near);
        while let Some(stale) = self.records.get(self.near)
            && stale.range.start() < range.end()
        {
            let stale = self.records.remove(&mut self.near);
            removed.extend(stale.map(|stale| stale.owner));
        }
    }

    /// Returns the number of bytes mapped by mappings wholly in `range`.
    pub(crate) fn bytes_within(&mut self, range: &Range) -> u64 {
        self.near = self.first_within(range);
        let mut bytes = 0_u64;
        let mut at = self.near;
        while let Some(one) = self.get_within(at, range) {
            bytes = bytes.saturating_add(one.len());
            at = self.records.next(at);
        }
        bytes
    }

    /// Removes the records of mappings wholly in `range`, in time proportional to their number.
    pub(crate) fn take_within(&mut self, range: &Range, removed: &mut impl Extend<T>) {
        self.near = self.first_within(range);
        while self.get_within(self.near, range).is_some() {
            let record = self.records.remove(&mut self.near);
            removed.extend(record.map(|record| record.owner));
        }
    }

    /// Returns the first mapping wholly in `range`.
    pub(crate) fn next_within(&mut self, range: &Range) -> Option<Range> {
        self.near = self.first_within(range);
        self.get_within(self.near, range)
    }

    /// Returns the first mapping wholly in `range`, with a property of its owner.
    pub(crate) fn first_in<P>(
        &mut self,
        range: &Range,
        property: impl FnOnce(&T) -> P,
    ) -> Option<(Range, P)> {
        self.near = self.first_within(range);
        let first = self.get_within(self.near, range)?;
        let record = self.records.get(self.near)?;
        Some((first, property(&record.owner)))
    }

    /// All mappings with their owners, in the order of their addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range, &T)> {
        self.records
            .iter()
            .map(|record| (record.range, &record.owner))
    }

    /// Returns a mapping that is partly in `range`.
    pub(crate) fn cut_by(&mut self, range: &Range) -> Option<Range> {
        self.near = self.records.find(range.start(), self.near);
        let last = self.records.find(range.end().saturating_sub(1), self.near);
        [self.near, last]
            .into_iter()
            .filter_map(|at| self.records.get(at))
            .map(Record::range)
            .find(|one| one.intersection(range).is_some() && !range.contains(one))
    }

    /// Removes all records, and returns their owners.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.records.take_all().map(|record| record.owner)
    }

    /// Returns the position of the first mapping that starts at or after the start of `range`.
    fn first_within(&self, range: &Range) -> Position {
        let at = self.records.find(range.start(), self.near);
        match self.records.get(at) {
            Some(one) if one.range.start() < range.start() => self.records.next(at),
            _ => at,
        }
    }

    /// Returns the mapping at a position, unless it ends after `range`.
    fn get_within(&self, at: Position, range: &Range) -> Option<Range> {
        let one = self.records.get(at)?.range;
        (one.end() <= range.end()).then_some(one)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn insert<T>(mappings: &mut Mappings<T>, start: u64, length: u64, owner: T) -> Vec<T> {
        let mut removed = Vec::new();
        mappings.insert(Range::new(start, length).unwrap(), owner, &mut removed);
        removed
    }

    #[test]
    fn finds_a_mapping_that_a_range_cuts() {
        let mut mappings = Mappings::default();
        for (start, length) in [(0x1000, 0x2000), (0x5000, 0x1000), (0x8000, 0x2000)] {
            assert_eq!(insert(&mut mappings, start, length, ()), []);
        }
        let mut cut = |start, length| mappings.cut_by(&Range::new(start, length).unwrap());
        let first = Range::new(0x1000, 0x2000).unwrap();
        let last = Range::new(0x8000, 0x2000).unwrap();
        for (start, length, expected) in [
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
            assert_eq!(cut(start, length), expected, "{start:#x}+{length:#x}");
        }
        let within = Range::new(0x2000, 0x9000).unwrap();
        assert_eq!(
            mappings.next_within(&within),
            Range::between(0x5000, 0x6000)
        );
        mappings.take_within(&Range::new(0x5000, 0x1000).unwrap(), &mut Vec::new());
        assert_eq!(mappings.next_within(&within), Some(last));
    }

    #[test]
    fn counts_only_mappings_wholly_in_the_range() {
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
        let mut removed = Vec::new();
        mappings.take_within(&Range::new(0x2000, 0x3000).unwrap(), &mut removed);
        assert_eq!(removed, [0x3000]);
        assert_eq!(mappings.len(), 2);
        assert_eq!(insert(&mut mappings, 0x8000, 0x2000, 0x8001), [0x8000]);
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x3000
        );
        assert!(mappings.take_all().eq([0x1000, 0x8001]));
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
        // Inside one record: the new mapping can be unmapped, whatever record surrounded it.
        assert_eq!(insert(&mut mappings, 0x3000, 0x1000, 0x3000), [0x1000]);
        assert_eq!(mappings.cut_by(&range(0x3000, 0x1000)), None);
        // Across several records, adjoining one.
        assert_eq!(
            insert(&mut mappings, 0x9800, 0x2800, 0x9800),
            [0x9000, 0xb000]
        );
        assert_eq!(insert(&mut mappings, 0xf000, 0x1000, 0xf000), []);
        assert_eq!(
            mappings.bytes_within(&Range::new(0, u64::MAX).unwrap()),
            0x1000 + 0x2800 + 0x1000 + 0x1000
        );
        assert!(mappings.take_all().eq([0x3000, 0x9800, 0xf000, 0x10000]));
    }
}
