//! What is placed where in a reservation: non-overlapping extents, sorted by offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::PlacedFile;
use super::private::PrivateMemory;
use crate::Range;

/// What is behind an extent, and from where.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Part of a file, from this offset.
    File(Arc<PlacedFile>, u64),
    /// Part of private memory, from this offset.
    Private(PrivateMemory, u64),
}

impl Source {
    /// The same, `delta` bytes further.
    fn advanced(&self, delta: u64) -> Self {
        match self {
            Self::File(file, offset) => Self::File(Arc::clone(file), offset.saturating_add(delta)),
            Self::Private(memory, offset) => {
                Self::Private(memory.clone(), offset.saturating_add(delta))
            }
        }
    }
}

/// Something placed in a reservation.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) range: Range,
    pub(crate) source: Source,
    pub(crate) writable: bool,
    /// All of it was faulted in, and its memory can't be taken from behind it.
    pub(crate) present: bool,
}

impl Extent {
    /// The part of it in `range`.
    pub(crate) fn clipped(&self, range: &Range) -> Option<Self> {
        let part = self.range.intersection(range)?;
        let delta = part.start().saturating_sub(self.range.start());
        Some(Self {
            range: part,
            source: self.source.advanced(delta),
            writable: self.writable,
            present: self.present,
        })
    }
}

/// The extents of one reservation.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    extents: BTreeMap<u64, Extent>,
}

impl ExtentMap {
    /// The extents that have anything in common with `range`, in order.
    pub(crate) fn overlapping(&self, range: &Range) -> impl Iterator<Item = &Extent> {
        let first = self
            .extents
            .range(..range.start())
            .next_back()
            .map(|(_, extent)| extent);
        let start = range.start();
        first
            .into_iter()
            .filter(move |extent| extent.range.end() > start)
            .chain(
                self.extents
                    .range(range.start()..range.end())
                    .map(|(_, extent)| extent),
            )
    }

    /// Remembers that all of `range` was faulted in. Only memory that keeps its length is remembered:
    /// other files may have been truncated by the time they are asked for again.
    pub(crate) fn mark_present(&mut self, range: &Range) {
        for (_, extent) in self.extents.range_mut(range.start()..range.end()) {
            let lasting = match &extent.source {
                Source::File(file, _) => file.file.is_fixed(),
                Source::Private(..) => true,
            };
            extent.present |= lasting && range.contains(&extent.range);
        }
    }

    /// Whether something is placed all over `range`, and all of it was faulted in.
    pub(crate) fn is_present(&self, range: &Range) -> bool {
        let mut at = range.start();
        for extent in self.overlapping(range) {
            if extent.range.start() > at || !extent.present {
                return false;
            }
            at = extent.range.end();
        }
        at >= range.end()
    }

    /// The first part of `range` where nothing is placed.
    pub(crate) fn first_gap(&self, range: &Range) -> Option<Range> {
        let mut at = range.start();
        for extent in self.overlapping(range) {
            if let Some(gap) = Range::between(at, extent.range.start()) {
                return Some(gap);
            }
            at = extent.range.end();
        }
        Range::between(at, range.end())
    }

    /// Adds an extent where nothing is placed.
    pub(crate) fn insert(&mut self, extent: Extent) {
        self.extents.insert(extent.range.start(), extent);
    }

    /// Takes out whatever is in `range`, splitting extents at its ends. Returns what was touched,
    /// for the caller to drop when it holds no lock any more.
    pub(crate) fn remove(&mut self, range: &Range) -> Vec<Extent> {
        let starts: Vec<u64> = self
            .overlapping(range)
            .map(|extent| extent.range.start())
            .collect();
        let gone: Vec<Extent> = starts
            .iter()
            .filter_map(|start| self.extents.remove(start))
            .collect();
        for extent in &gone {
            let before = Range::between(extent.range.start(), range.start());
            let after = Range::between(range.end(), extent.range.end());
            for rest in [before, after].into_iter().flatten() {
                if let Some(rest) = extent.clipped(&rest) {
                    self.insert(rest);
                }
            }
        }
        gone
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.extents).into_values().collect()
    }
}
