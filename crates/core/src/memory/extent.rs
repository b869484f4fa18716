//! The records of a reservation: sorted extents that do not overlap, with memory and leases.

use std::sync::Arc;

use super::placed_file::PlacedFile;
use super::private::PrivateMemory;
use crate::Range;
use crate::range::joined;
use crate::range_list::{Position, RangeList, Ranged};

/// The memory of an extent, and the offset in it.
#[derive(Debug, Clone)]
pub(crate) enum ExtentSource {
    /// Part of a file, from this offset.
    File(Arc<PlacedFile>, u64),
    /// Part of private memory, from this offset.
    Private(PrivateMemory, u64),
}

impl ExtentSource {
    /// Returns the source `delta` bytes further. No source passes 2^64: its range is checked when it is mapped.
    fn advanced(&self, delta: u64) -> Self {
        match self {
            Self::File(file, offset) => Self::File(Arc::clone(file), offset.saturating_add(delta)),
            Self::Private(memory, offset) => {
                Self::Private(memory.clone(), offset.saturating_add(delta))
            }
        }
    }

    /// Whether `next` is the same source, `delta` bytes further.
    fn is_continued_by(&self, delta: u64, next: &Self) -> bool {
        let (from, to) = match (self, next) {
            (Self::File(file, from), Self::File(next, to)) if Arc::ptr_eq(file, next) => (from, to),
            (Self::Private(memory, from), Self::Private(next, to)) if memory.is(next) => (from, to),
            _ => return false,
        };
        from.checked_add(delta) == Some(*to)
    }
}

/// A mapping in a reservation. Each field applies to every byte of it.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) range: Range,
    pub(crate) source: ExtentSource,
    pub(crate) writable: bool,
    /// The extent was faulted in, and nobody can remove its memory.
    pub(crate) present: bool,
    /// The number of leases. At the maximum the count is unknown, and the extent stays leased for ever.
    pub(crate) leases: u32,
}

impl Ranged for Extent {
    fn range(&self) -> Range {
        self.range
    }
}

impl Extent {
    /// Returns the part of the extent in `range`.
    pub(crate) fn clipped(&self, range: &Range) -> Option<Self> {
        let part = self.range.intersection(range)?;
        let delta = part.start().saturating_sub(self.range.start());
        Some(Self {
            range: part,
            source: self.source.advanced(delta),
            ..*self
        })
    }

    /// Whether the extent is memory of a device.
    pub(super) fn is_device(&self) -> bool {
        matches!(&self.source, ExtentSource::File(placed, _) if placed.file.is_device())
    }

    /// Whether `next` continues the same mapping.
    fn is_continued_by(&self, next: &Self) -> bool {
        self.range.end() == next.range.start()
            && self.writable == next.writable
            && self.source.is_continued_by(self.range.len(), &next.source)
    }

    fn lease(&mut self) {
        self.leases = self.leases.saturating_add(1);
    }

    fn release(&mut self) {
        if self.leases != u32::MAX {
            self.leases = self.leases.saturating_sub(1);
        }
    }

    /// Marks only memory of sealed length: another file may be truncated before the next access.
    fn mark_present(&mut self) {
        self.present |= match &self.source {
            ExtentSource::File(file, _) => file.file.is_fixed(),
            ExtentSource::Private(..) => true,
        };
    }
}

/// One side of a border between kernel mappings.
#[derive(Debug, Clone, Copy)]
enum Side<'extents> {
    /// Beyond the reservation.
    Edge,
    /// Inaccessible memory.
    Gap,
    Extent(&'extents Extent),
}

impl Side<'_> {
    /// Whether the kernel never merges this side with an adjoining gap.
    const fn is_border(&self) -> bool {
        !matches!(self, Self::Gap)
    }

    /// Whether the kernel may have merged both sides into one mapping. Returns `true` in doubt: the kernel does not
    /// merge all files and pages that look mergeable.
    fn may_merge(&self, next: &Self) -> bool {
        let (first, second) = match (self, next) {
            (Self::Gap, Self::Gap) => return true,
            (Self::Extent(first), Self::Extent(second)) => (first, second),
            _ => return false,
        };
        let follows = |from: u64, to: u64| from.checked_add(first.range.len()) == Some(to);
        let same = first.range == second.range;
        let continued = match (&first.source, &second.source) {
            // The kernel can regard two of our files as one.
            (ExtentSource::File(_, from), ExtentSource::File(_, to))
            | (ExtentSource::Private(_, from), ExtentSource::Private(_, to)) => follows(*from, *to),
            _ => false,
        };
        same || first.writable == second.writable && continued
    }
}

/// The extents of one reservation. Adjoining extents of one mapping are joined while they are equal.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    extents: RangeList<Extent>,
}

impl ExtentMap {
    /// Iterates over all extents, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Extent> {
        self.extents.iter()
    }

    /// Returns the range of the first `count` extents, or fewer; `None` if there are none.
    pub(super) fn first_part(&self, count: usize) -> Option<Range> {
        let mut extents = self.extents.iter().take(count);
        let first = extents.next()?.range;
        let end = extents.fold(first.end(), |_, extent| extent.range.end());
        Range::between(first.start(), end)
    }

    /// Iterates over the extents that overlap `range`, in order.
    pub(crate) fn overlapping(&self, range: &Range) -> impl Iterator<Item = &Extent> {
        self.extents.overlapping(range)
    }

    /// Adds a lease of `range`, which must be mapped throughout. Fast if `near` is where the last call ended, before
    /// the range.
    pub(crate) fn lease(&mut self, range: &Range, near: &mut Position) {
        self.change(range, near, Extent::lease);
    }

    /// Removes one lease of `range`. If a part of `range` is not leased, which is a bug, nothing changes: the rest
    /// stays leased for ever, because a device may reach the memory.
    pub(crate) fn release(&mut self, range: &Range, near: &mut Position) {
        if self.is_leased(range, near) {
            self.change(range, near, Extent::release);
        }
    }

    fn is_leased(&self, range: &Range, near: &mut Position) -> bool {
        *near = self.extents.find(range.start(), *near);
        let (mut at, mut end) = (*near, range.start());
        while let Some(extent) = self.extents.get(at)
            && extent.range.start() <= end
            && extent.leases > 0
        {
            end = extent.range.end();
            if end >= range.end() {
                return true;
            }
            at = self.extents.next(at);
        }
        false
    }

    /// Marks all of `range` as faulted in.
    pub(crate) fn mark_present(&mut self, range: &Range) {
        self.change(range, &mut Position::default(), Extent::mark_present);
    }

    /// Changes the extents in `range`: splits those at its ends, and joins equal ones afterwards.
    fn change(&mut self, range: &Range, near: &mut Position, change: fn(&mut Extent)) {
        let mut at = self.extents.find(range.start(), *near);
        match self.extents.get_mut(at) {
            Some(extent) if extent.range == *range => change(extent),
            _ => {
                self.split(range.start());
                self.split(range.end());
                let first = self.extents.find(range.start(), at);
                at = first;
                while let Some(extent) = self.extents.get_mut(at)
                    && extent.range.start() < range.end()
                {
                    change(extent);
                    at = self.extents.next(at);
                }
                at = first;
            }
        }
        *near = self.join(at, range.end());
    }

    /// Splits the extent that contains `address` in its interior.
    fn split(&mut self, address: u64) {
        let at = self.extents.find(address, Position::default());
        let Some(extent) = self.extents.get_mut(at) else {
            return;
        };
        let head = Range::between(extent.range.start(), address);
        let tail = Range::between(address, extent.range.end());
        if let (Some(head), Some(tail)) = (head, tail)
            && let Some(tail) = extent.clipped(&tail)
        {
            extent.range = head;
            self.extents.insert(tail);
        }
    }

    /// Joins equal extents, from the one before `at` to the one at address `end`. Returns the position of the last.
    fn join(&mut self, at: Position, end: u64) -> Position {
        let mut at = self.extents.previous(at).unwrap_or(at);
        loop {
            let after = self.extents.next(at);
            let (Some(one), Some(next)) = (self.extents.get(at), self.extents.get(after)) else {
                return at;
            };
            if next.range.start() > end {
                return at;
            }
            let alike = (one.present, one.leases) == (next.present, next.leases);
            let joined = Range::between(one.range.start(), next.range.end());
            if let (true, Some(joined)) = (alike && one.is_continued_by(next), joined) {
                self.extents.remove(&mut { after });
                let one = self.extents.get_mut(at);
                one.into_iter().for_each(|one| one.range = joined);
            } else {
                at = after;
            }
        }
    }

    /// Returns the extent that contains the byte at `at`.
    fn covering(&self, at: u64) -> Option<&Extent> {
        let extent = self
            .extents
            .get(self.extents.find(at, Position::default()))?;
        (extent.range.start() <= at).then_some(extent)
    }

    /// Returns the sides before and after `range`, in a reservation of range `whole`.
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

    /// Returns the largest number of kernel mappings that mapping the free `range` adds. It is 0 if the range fills a
    /// gap, and 2 in the middle of a gap.
    pub(crate) fn cost_of_placing(&self, range: &Range, whole: &Range) -> usize {
        let (before, behind) = self.beside(range, whole);
        usize::from(!before.is_border()).saturating_add(usize::from(!behind.is_border()))
    }

    /// Returns how many borders between kernel mappings are removed and added by emptying `range`. The first is a lower
    /// limit.
    pub(crate) fn cost_of_emptying(&self, range: &Range, whole: &Range) -> (usize, usize) {
        let (before, behind) = self.beside(range, whole);
        let added = usize::from(before.is_border()).saturating_add(usize::from(behind.is_border()));
        let mut removed = 0_usize;
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
            removed = removed.saturating_add(usize::from(!last.may_merge(&next)));
            last = next;
        }
        (removed, added)
    }

    /// Returns the ranges that contain memory to fault in, and joins adjoining ones.
    ///
    /// # Errors
    /// The first unmapped part of a range.
    pub(crate) fn absent_of(
        &self,
        ranges: impl Iterator<Item = Range>,
    ) -> Result<Vec<Range>, Range> {
        let (mut absent, mut near) = (Vec::new(), Position::default());
        for range in joined(ranges) {
            if !self.is_present(&range, &mut near)? {
                absent.push(range);
            }
        }
        Ok(absent)
    }

    /// Whether all of `range` was faulted in, or is always present. Fast if `near` is where the last call ended,
    /// before the range.
    ///
    /// # Errors
    /// The first unmapped part of `range`.
    pub(crate) fn is_present(&self, range: &Range, near: &mut Position) -> Result<bool, Range> {
        *near = self.extents.find(range.start(), *near);
        let (mut at, mut present) = (range.start(), true);
        loop {
            let extent = self.extents.get(*near);
            let start = extent.map_or(range.end(), |extent| extent.range.start());
            if let Some(gap) = Range::between(at, start.min(range.end())) {
                return Err(gap);
            }
            let Some(extent) = extent else {
                return Ok(present);
            };
            present &= extent.present || extent.is_device();
            at = extent.range.end();
            if at >= range.end() {
                return Ok(present);
            }
            *near = self.extents.next(*near);
        }
    }

    /// Adds an extent in an unmapped range.
    pub(crate) fn insert(&mut self, extent: Extent) {
        self.extents.insert(extent);
    }

    /// Removes the extents in `range`, and splits those at its ends. Returns them for the caller to drop after it has
    /// released its locks.
    pub(crate) fn remove(&mut self, range: &Range) -> Vec<Extent> {
        self.split(range.start());
        self.split(range.end());
        let mut removed = Vec::new();
        let mut at = self.extents.find(range.start(), Position::default());
        while let Some(extent) = self.extents.get(at)
            && extent.range.start() < range.end()
        {
            removed.extend(self.extents.remove(&mut at));
        }
        removed
    }

    /// Returns the mappings in `range`, in order. Each is one extent, even if only parts of it are leased or present.
    pub(crate) fn parts_in(&self, range: &Range) -> Vec<Extent> {
        let mut parts: Vec<Extent> = Vec::new();
        for part in self
            .overlapping(range)
            .filter_map(|extent| extent.clipped(range))
        {
            match parts.last_mut() {
                Some(last) if last.is_continued_by(&part) => {
                    last.range =
                        Range::between(last.range.start(), part.range.end()).unwrap_or(last.range);
                    last.present &= part.present;
                }
                _ => parts.push(part),
            }
        }
        parts
    }
}
