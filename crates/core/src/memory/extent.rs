//! What is placed where in a reservation: non-overlapping extents, sorted by offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::placed_file::PlacedFile;
use super::private::PrivateMemory;
use crate::{Error, ErrorCode, Range, Result};

/// What is behind an extent, and from where.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Part of a file, from this offset.
    File(Arc<PlacedFile>, u64),
    /// Part of private memory, from this offset.
    Private(PrivateMemory, u64),
}

impl Source {
    /// The same, `delta` bytes further; `None` past 2^64.
    fn advanced(&self, delta: u64) -> Option<Self> {
        Some(match self {
            Self::File(file, offset) => Self::File(Arc::clone(file), offset.checked_add(delta)?),
            Self::Private(memory, offset) => {
                Self::Private(memory.clone(), offset.checked_add(delta)?)
            }
        })
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
    /// How many leases there are of exactly its range. One that is leased is not removed, and not split.
    pub(super) leases: u64,
}

impl Extent {
    /// The part of it in `range`; `None` also where its source would pass 2^64, which no checked extent does.
    pub(crate) fn clipped(&self, range: &Range) -> Option<Self> {
        let part = self.range.intersection(range)?;
        let delta = part.start().checked_sub(self.range.start())?;
        Some(Self {
            range: part,
            source: self.source.advanced(delta)?,
            writable: self.writable,
            present: self.present,
            leases: 0,
        })
    }

    /// Whether it is memory of a device.
    pub(super) fn is_device(&self) -> bool {
        matches!(&self.source, Source::File(placed, _) if placed.file.is_device())
    }
}

/// What is on one side of a border between kernel mappings.
#[derive(Debug, Clone, Copy)]
enum Side<'extents> {
    /// The world outside of the reservation.
    Edge,
    /// Inaccessible memory.
    Gap,
    Extent(&'extents Extent),
}

impl Side<'_> {
    /// Whether a gap beside it can't be in one kernel mapping with it.
    const fn is_border(&self) -> bool {
        !matches!(self, Self::Gap)
    }

    /// Whether the kernel may have made one mapping of the two. Says yes when in doubt: not all files
    /// and pages are merged that look as if they could be.
    fn may_merge(&self, next: &Self) -> bool {
        let (first, second) = match (self, next) {
            (Self::Gap, Self::Gap) => return true,
            (Self::Extent(first), Self::Extent(second)) => (first, second),
            _ => return false,
        };
        let follows = |from: u64, to: u64| from.checked_add(first.range.len()) == Some(to);
        let same = first.range == second.range;
        let continued = match (&first.source, &second.source) {
            // Two files may be one to the kernel.
            (Source::File(_, from), Source::File(_, to))
            | (Source::Private(_, from), Source::Private(_, to)) => follows(*from, *to),
            _ => false,
        };
        same || first.writable == second.writable && continued
    }
}

/// The extents of one reservation.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    extents: BTreeMap<u64, Extent>,
}

impl ExtentMap {
    /// All extents, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.extents.values()
    }

    /// What the first extents take up, at most `count` of them; `None` when there are none.
    pub(super) fn first_part(&self, count: usize) -> Option<Range> {
        let mut extents = self.extents.values().take(count);
        let first = extents.next()?.range;
        let end = extents.fold(first.end(), |_, extent| extent.range.end());
        Range::between(first.start(), end)
    }

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

    /// The extent of exactly that range.
    pub(super) fn exact(&mut self, range: &Range) -> Option<&mut Extent> {
        let extent = self.extents.get_mut(&range.start())?;
        (extent.range == *range).then_some(extent)
    }

    /// The extent that the byte at `at` is in.
    fn covering(&self, at: u64) -> Option<&Extent> {
        let (_, extent) = self.extents.range(..=at).next_back()?;
        Some(extent).filter(|extent| extent.range.end() > at)
    }

    /// What adjoins `range` before and behind, in a reservation that is `whole`.
    fn beside(&self, range: &Range, whole: &Range) -> (Side<'_>, Side<'_>) {
        let side = |at: u64| self.covering(at).map_or(Side::Gap, Side::Extent);
        let before = range.start().checked_sub(1);
        (
            before
                .filter(|at| *at >= whole.start())
                .map_or(Side::Edge, side),
            Some(range.end())
                .filter(|at| *at < whole.end())
                .map_or(Side::Edge, side),
        )
    }

    /// How many kernel mappings there are more at most when something gets placed in `range`, where
    /// nothing is: none if it fills a gap, two amid nothing.
    pub(crate) fn cost_of_placing(&self, range: &Range, whole: &Range) -> usize {
        let (before, behind) = self.beside(range, whole);
        usize::from(!before.is_border()).saturating_add(usize::from(!behind.is_border()))
    }

    /// When `range` is emptied, how many borders between kernel mappings are sure to go, and how many
    /// come: as many mappings fewer, and more.
    pub(crate) fn cost_of_emptying(&self, range: &Range, whole: &Range) -> (usize, usize) {
        let (before, behind) = self.beside(range, whole);
        let come = usize::from(before.is_border()).saturating_add(usize::from(behind.is_border()));
        let mut go = 0_usize;
        let (mut last, mut at) = (before, range.start());
        let inside = self.overlapping(range).flat_map(|extent| {
            let gap = extent.range.start() > at;
            at = extent.range.end();
            gap.then_some(Side::Gap)
                .into_iter()
                .chain([Side::Extent(extent)])
        });
        let mut sides: Vec<Side<'_>> = inside.collect();
        if at < range.end() {
            sides.push(Side::Gap);
        }
        sides.push(behind);
        for next in sides {
            go = go.saturating_add(usize::from(!last.may_merge(&next)));
            last = next;
        }
        (go, come)
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
            let rests = [before, after].into_iter().flatten();
            let rests: Option<Vec<Extent>> = rests.map(|rest| extent.clipped(&rest)).collect();
            // Better that all of it stays on record than that a part is mapped without one.
            for rest in rests.unwrap_or_else(|| vec![extent.clone()]) {
                self.insert(rest);
            }
        }
        gone
    }

    /// The parts of extents that lie in `range`, in order.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` for an extent whose source would pass 2^64.
    pub(crate) fn parts_in(&self, range: &Range) -> Result<Vec<Extent>> {
        self.overlapping(range)
            .map(|extent| {
                extent.clipped(range).ok_or_else(|| {
                    let message = format!("{}: its source passes 2^64", extent.range);
                    Error::new(ErrorCode::OutOfRange, message)
                })
            })
            .collect()
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.extents).into_values().collect()
    }
}
