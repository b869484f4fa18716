//! A sorted list of items with address ranges, kept in short arrays.
//!
//! Batches are in the order of their addresses: an item that is added at the end, or found next to the last position,
//! requires no search, and the arrays stay full. A `BTreeMap` that is filled in order is half empty.

use std::collections::VecDeque;

use crate::Range;

/// The largest number of items in an array.
const CHUNK: usize = if cfg!(test) { 8 } else { 64 };

/// An item with a range that overlaps no other item of the list.
pub(crate) trait Ranged {
    /// The addresses of the item.
    fn range(&self) -> Range;
}

/// The position of an item. Adding or removing items invalidates it; it is then a hint for the next search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    chunk: usize,
    index: usize,
}

/// Items sorted by their ranges, which never overlap. No array in the list is empty.
#[derive(Debug)]
pub(crate) struct RangeList<T> {
    chunks: VecDeque<Vec<T>>,
    length: usize,
}

impl<T> Default for RangeList<T> {
    fn default() -> Self {
        Self {
            chunks: VecDeque::new(),
            length: 0,
        }
    }
}

impl<T> RangeList<T> {
    /// The number of items.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Iterates over all items, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.chunks.back()?.last()
    }

    pub(crate) fn get(&self, at: Position) -> Option<&T> {
        self.chunks.get(at.chunk)?.get(at.index)
    }

    pub(crate) fn get_mut(&mut self, at: Position) -> Option<&mut T> {
        self.chunks.get_mut(at.chunk)?.get_mut(at.index)
    }

    /// Returns the position after `at`, or the end of the list.
    pub(crate) fn next(&self, at: Position) -> Position {
        let index = at.index.saturating_add(1);
        match self.chunks.get(at.chunk) {
            Some(chunk) if index < chunk.len() => Position { index, ..at },
            _ => Position {
                chunk: at.chunk.saturating_add(1).min(self.chunks.len()),
                index: 0,
            },
        }
    }

    /// Returns the position before `at`, which can be the end of the list.
    pub(crate) fn previous(&self, at: Position) -> Option<Position> {
        if let Some(index) = at.index.checked_sub(1) {
            return Some(Position { index, ..at });
        }
        let chunk = at.chunk.checked_sub(1)?;
        let index = self.chunks.get(chunk)?.len().checked_sub(1)?;
        Some(Position { chunk, index })
    }

    /// Removes the item at `at`, and sets `at` to the position of the next item. Positions before it stay valid.
    pub(crate) fn remove(&mut self, at: &mut Position) -> Option<T> {
        let chunk = self.chunks.get_mut(at.chunk)?;
        let item = (at.index < chunk.len()).then(|| chunk.remove(at.index))?;
        self.length = self.length.saturating_sub(1);
        if chunk.is_empty() {
            self.chunks.remove(at.chunk);
        } else if chunk.len() < CHUNK / 4 {
            self.join_chunks(at.chunk);
        }
        if self.get(*at).is_none() {
            *at = self.next(*at);
        }
        Some(item)
    }

    /// Joins a short array with the next one if the result is at most half full.
    fn join_chunks(&mut self, at: usize) {
        let after = at.saturating_add(1);
        let length = |at| self.chunks.get(at).map_or(CHUNK, Vec::len);
        if length(at).saturating_add(length(after)) > CHUNK / 2 {
            return;
        }
        if let Some(mut second) = self.chunks.remove(after)
            && let Some(first) = self.chunks.get_mut(at)
        {
            first.append(&mut second);
        }
    }

    /// Removes all items.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(self).chunks.into_iter().flatten()
    }
}

impl<T: Ranged> RangeList<T> {
    /// Returns the position of the first item that ends after `address`, or the end of the list. Fast if the position
    /// is `near` or the next one.
    pub(crate) fn find(&self, address: u64, near: Position) -> Position {
        let is_before = |item: &T| item.range().end() <= address;
        match self.get(near) {
            Some(item) if is_before(item) => {
                let after = self.next(near);
                if self.get(after).is_some_and(|item| !is_before(item)) {
                    return after;
                }
            }
            Some(item) if item.range().start() <= address => return near,
            _ => {}
        }
        let is_chunk_before = |chunk: &Vec<T>| chunk.last().is_some_and(is_before);
        let chunk = self.chunks.partition_point(is_chunk_before);
        let found = self.chunks.get(chunk);
        let index = found.map_or(0, |chunk| chunk.partition_point(is_before));
        Position { chunk, index }
    }

    /// Iterates over the items that overlap `range`, in order.
    pub(crate) fn overlapping(&self, range: &Range) -> impl Iterator<Item = &T> + use<'_, T> {
        let (mut at, end) = (self.find(range.start(), Position::default()), range.end());
        std::iter::from_fn(move || {
            let item = self.get(at).filter(|item| item.range().start() < end)?;
            at = self.next(at);
            Some(item)
        })
    }

    /// Adds an item whose range overlaps no other.
    pub(crate) fn insert(&mut self, item: T) {
        self.length = self.length.saturating_add(1);
        let start = item.range().start();
        let is_last = |last: &T| last.range().end() <= start;
        match self.chunks.back_mut() {
            Some(last) if !last.last().is_some_and(is_last) => self.insert_amid(item),
            Some(last) if last.len() < CHUNK => last.push(item),
            _ => self.chunks.push_back(vec![item]),
        }
    }

    fn insert_amid(&mut self, item: T) {
        let at = self.find(item.range().start(), Position::default());
        let Some(chunk) = self.chunks.get_mut(at.chunk) else {
            // Unreachable: an item after this one exists. The item is kept all the same, because a device may reach
            // its memory.
            self.chunks.push_back(vec![item]);
            return;
        };
        chunk.insert(at.index, item);
        if chunk.len() > CHUNK {
            let second = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at.chunk.saturating_add(1), second);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Ranged for Range {
        fn range(&self) -> Range {
            *self
        }
    }

    /// Miri is a thousand times slower.
    const STEPS: usize = if cfg!(miri) { 20 } else { 200 };

    proptest! {
        #[test]
        fn matches_a_btree_map(
            steps in prop::collection::vec((0..120_u64, 1..4_u64, 0..5_usize), 1..STEPS),
            asked in (0..130_u64, 1..30_u64),
        ) {
            let mut list: RangeList<Range> = RangeList::default();
            let mut model: BTreeMap<u64, Range> = BTreeMap::new();
            let mut near = Position::default();
            for (start, length, kind) in steps {
                let range = Range::new(start, length).unwrap();
                if kind > 0 && list.overlapping(&range).next().is_none() {
                    list.insert(range);
                    model.insert(start, range);
                } else {
                    let at = list.find(start, near);
                    prop_assert_eq!(at, list.find(start, Position::default()));
                    let expected = model.values().find(|one| one.end() > start).copied();
                    prop_assert_eq!(list.get(at).copied(), expected);
                    near = if kind > 2 { list.next(at) } else { at };
                    if kind < 2 {
                        let mut at = at;
                        prop_assert_eq!(list.remove(&mut at), expected);
                        model.retain(|_, one| Some(*one) != expected);
                        prop_assert_eq!(at, list.find(start, Position::default()));
                    }
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.values()));
                prop_assert!(list.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            }
            let asked = Range::new(asked.0, asked.1).unwrap();
            let found: Vec<Range> = list.overlapping(&asked).copied().collect();
            let overlaps = |one: &&Range| one.intersection(&asked).is_some();
            prop_assert_eq!(found, model.values().filter(overlaps).copied().collect::<Vec<_>>());
            let forwards: Vec<Position> = std::iter::successors(Some(Position::default()), |at| Some(list.next(*at)))
                .take(list.len() + 1)
                .collect();
            let backwards = std::iter::successors(forwards.last().copied(), |at| list.previous(*at));
            prop_assert!(backwards.eq(forwards.iter().rev().copied()));
            prop_assert!(list.take_all().eq(model.into_values()));
            prop_assert_eq!((list.len(), list.iter().count()), (0, 0));
        }
    }

    #[test]
    fn arrays_filled_in_order_are_full() {
        let mut list = RangeList::default();
        (0..96).for_each(|start| list.insert(Range::new(start * 2, 1).unwrap()));
        assert!(list.chunks.iter().all(|chunk| chunk.len() == CHUNK));
    }
}
