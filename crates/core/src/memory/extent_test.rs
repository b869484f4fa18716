//! The records of a reservation, compared with an array of cells.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::extent::{Extent, ExtentMap, ExtentSource};
use super::file::{Kind, MemoryFile};
use super::pieces::{Piece, is_within_piece, overlapping, split};
use super::placed_file::PlacedFile;
use crate::Range;
use crate::range_list::Position;

const CELLS: usize = 40;
/// Miri is a thousand times slower.
const STEPS: usize = if cfg!(miri) { 8 } else { 40 };

/// The mapping of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    /// The index of the mapping.
    placement: usize,
    from: u64,
    writable: bool,
    present: bool,
    leases: u32,
}

type Cells = [Option<Cell>; CELLS];

fn placed_file() -> Arc<PlacedFile> {
    let file = MemoryFile {
        part: None,
        kind: Arc::new(Kind::Memory {
            fd: super::memory_fd::MemoryFd::new(File::open("/dev/null").unwrap().into(), false),
            fixed: Some(1 << 40),
            hugetlb: false,
            page_size: 4096,
            node: AtomicU32::new(u32::MAX),
            mapped: std::sync::atomic::AtomicU8::new(0),
            is_shared_with_caller: std::sync::atomic::AtomicBool::new(false),
        }),
    };
    Arc::new(PlacedFile::new(&file).unwrap())
}

fn cells(range: &Range) -> std::ops::Range<usize> {
    usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()
}

fn source(extent: &Extent) -> (usize, u64) {
    match &extent.source {
        ExtentSource::File(file, from) => (Arc::as_ptr(file).addr(), *from),
        ExtentSource::Private(..) => panic!("no private memory was mapped"),
    }
}

/// Returns the number of extents after all possible joins.
fn alike(cells: &Cells) -> usize {
    let further = |a: Cell, b: Cell| {
        Cell {
            from: a.from + 1,
            ..a
        } == b
    };
    let starts = |at: &usize| match (
        at.checked_sub(1).and_then(|before| cells[before]),
        cells[*at],
    ) {
        (Some(before), Some(cell)) => !further(before, cell),
        (None, cell) => cell.is_some(),
        (Some(_), None) => false,
    };
    (0..CELLS).filter(starts).count()
}

/// Converts the records to an array of cells, and checks `overlapping` for each cell.
fn as_cells(extents: &ExtentMap, whole: &Range) -> Cells {
    let mut found: Cells = [None; CELLS];
    for extent in extents.overlapping(whole) {
        let (placement, from) = source(extent);
        for (index, cell) in cells(&extent.range).enumerate() {
            assert_eq!(found[cell], None, "extents overlap at {cell}");
            found[cell] = Some(Cell {
                placement,
                from: from + index as u64,
                writable: extent.writable,
                present: extent.present,
                leases: extent.leases,
            });
        }
    }
    for (cell, expected) in found.iter().enumerate() {
        let alone = Range::new(cell as u64, 1).unwrap();
        let count = extents.overlapping(&alone).count();
        assert_eq!(count, usize::from(expected.is_some()), "at {cell}");
    }
    found
}

/// Counts the mappings of a kernel that joins all it can: the same file, contiguous, with equal rights.
fn kernel_mappings(cells: &Cells) -> usize {
    let joined = |pair: &[Option<Cell>]| match (pair[0], pair[1]) {
        (None, None) => true,
        (Some(a), Some(b)) => a.from + 1 == b.from && a.writable == b.writable,
        _ => false,
    };
    let borders = cells.windows(2).filter(|pair| !joined(pair)).count();
    borders + 1
}

#[derive(Debug, Clone)]
enum Step {
    Place {
        range: Range,
        from: u64,
        writable: bool,
    },
    Empty(Range),
    FaultIn(Range),
    Lease(Range),
    /// Whether or not the range is leased.
    Release(Range),
}

fn range() -> impl Strategy<Value = Range> {
    (0..CELLS as u64, 1..12_u64)
        .prop_map(|(start, length)| Range::new(start, length.min(CELLS as u64 - start)).unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (range(), prop_oneof![Just(0), 0..20_u64], any::<bool>(), any::<bool>()).prop_map(
            // The file offset often follows the reservation offset, so that extents can be joined.
            |(range, from, writable, same)| Step::Place {
                range,
                from: if same { range.start() } else { from },
                writable,
            }
        ),
        3 => range().prop_map(Step::Empty),
        2 => range().prop_map(Step::FaultIn),
        3 => range().prop_map(Step::Lease),
        3 => range().prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn records_match_the_mappings(steps in prop::collection::vec(step(), 1..STEPS), asked in range()) {
        let whole = Range::new(0, CELLS as u64).unwrap();
        let file = placed_file();
        let (mut extents, mut model): (ExtentMap, Cells) = (ExtentMap::default(), [None; CELLS]);
        let mut near = Position::default();
        for step in steps {
            let before = kernel_mappings(&model);
            match step {
                Step::Place { range, from, writable } => {
                    let free = extents.overlapping(&range).next().is_none();
                    prop_assert_eq!(free, model[cells(&range)].iter().all(Option::is_none));
                    if !free { continue; }
                    let cost = extents.cost_of_placing(&range, &whole);
                    let file = Arc::new(PlacedFile::new(&file.file).unwrap());
                    let placement = Arc::as_ptr(&file).addr();
                    extents.insert(Extent {
                        range,
                        source: ExtentSource::File(file, from),
                        writable,
                        present: false,
                        leases: 0,
                    });
                    for (index, cell) in cells(&range).enumerate() {
                        model[cell] = Some(Cell { placement, from: from + index as u64, writable, present: false, leases: 0 });
                    }
                    prop_assert!(kernel_mappings(&model) <= before + cost);
                }
                Step::Empty(range) => {
                    let (fewer, more) = extents.cost_of_emptying(&range, &whole);
                    let removed = extents.remove(&range);
                    let touched = model[cells(&range)].iter().flatten().count();
                    let within = |extent: &Extent| extent.clipped(&range).map_or(0, |part| part.range.len());
                    prop_assert_eq!(removed.iter().map(within).sum::<u64>(), touched as u64);
                    model[cells(&range)].fill(None);
                    prop_assert!(kernel_mappings(&model) + fewer <= before + more);
                }
                Step::FaultIn(range) => {
                    extents.mark_present(&range);
                    for cell in model[cells(&range)].iter_mut().flatten() { cell.present = true; }
                }
                Step::Lease(range) => {
                    if model[cells(&range)].iter().any(Option::is_none) { continue; }
                    extents.lease(&range, &mut near);
                    for cell in model[cells(&range)].iter_mut().flatten() { cell.leases += 1; }
                }
                Step::Release(range) => {
                    extents.release(&range, &mut near);
                    let leased = |cell: &Option<Cell>| cell.is_some_and(|cell| cell.leases > 0);
                    if !model[cells(&range)].iter().all(leased) { continue; }
                    for cell in model[cells(&range)].iter_mut().flatten() { cell.leases -= 1; }
                }
            }
            prop_assert_eq!(as_cells(&extents, &whole), model);
            prop_assert_eq!(extents.iter().count(), alike(&model));
            let gap = model[cells(&asked)].iter().position(Option::is_none);
            let found = extents.is_present(&asked, &mut near).err();
            prop_assert_eq!(found.map(|gap| gap.start()), gap.map(|at| asked.start() + at as u64));
            if let Some(found) = found {
                prop_assert!(model[cells(&found)].iter().all(Option::is_none) && asked.contains(&found));
                prop_assert!(found.end() == asked.end() || model[cells(&found).end].is_some());
            }
            let present = model[cells(&asked)].iter().all(|cell| cell.is_some_and(|cell| cell.present));
            prop_assert_eq!(extents.is_present(&asked, &mut near) == Ok(true), present);
            let parts = extents.parts_in(&asked);
            let touched = model[cells(&asked)].iter().flatten().count();
            prop_assert_eq!(parts.iter().map(|part| part.range.len()).sum::<u64>(), touched as u64);
            let cut = |pair: &[Extent]| {
                let ((first, from), (second, to)) = (source(&pair[0]), source(&pair[1]));
                pair[0].range.end() == pair[1].range.start() && first == second && from + pair[0].range.len() == to
            };
            prop_assert!(!parts.windows(2).any(cut));
        }
    }

    #[test]
    fn pieces_cover_the_memory_and_locate_each_byte(
        cuts in prop::collection::vec((0..=CELLS as u64, any::<bool>()), 0..STEPS),
        asked in range(),
    ) {
        let whole = Piece { end: CELLS as u64, placed: None };
        let mut pieces = std::collections::BTreeMap::from([(0, whole)]);
        let mut model = [None; CELLS];
        for (round, (at, moves)) in cuts.into_iter().enumerate() {
            let within = is_within_piece(&pieces, at);
            let before = pieces.len();
            split(&mut pieces, at).unwrap();
            prop_assert_eq!(pieces.len(), before + usize::from(within));
            prop_assert!(!is_within_piece(&pieces, at));
            if let Some(piece) = pieces.get_mut(&at).filter(|_| moves) {
                let to = 1000 * (round + 1);
                piece.placed = Some(to);
                let moved = usize::try_from(at).unwrap()..usize::try_from(piece.end).unwrap();
                model[moved].iter_mut().enumerate().for_each(|(index, cell)| *cell = Some(to + index));
            }
            let mut end = 0;
            for (start, piece) in &pieces {
                prop_assert!(*start == end && piece.end > *start);
                end = piece.end;
            }
            prop_assert_eq!(end, CELLS as u64);
            let mut reached = asked.start();
            for (start, piece) in overlapping(&pieces, &asked) {
                prop_assert!(start <= reached && piece.end > reached);
                for cell in cells(&Range::between(start, piece.end).unwrap()) {
                    let within = cell - usize::try_from(start).unwrap();
                    prop_assert_eq!(piece.placed.map(|placed| placed + within), model[cell]);
                }
                reached = piece.end;
            }
            prop_assert!(reached >= asked.end());
        }
    }
}

#[test]
fn an_overflow_of_the_lease_count_holds_for_ever() {
    let range = Range::new(0, 10).unwrap();
    let mut extents = ExtentMap::default();
    extents.insert(Extent {
        range,
        source: ExtentSource::File(placed_file(), 0),
        writable: true,
        present: false,
        leases: u32::MAX - 1,
    });
    let mut near = Position::default();
    extents.lease(&range, &mut near);
    extents.lease(&range, &mut near);
    for _ in 0..3 {
        extents.release(&range, &mut near);
    }
    let leases = extents.overlapping(&range).map(|extent| extent.leases);
    assert_eq!(leases.collect::<Vec<_>>(), [u32::MAX]);
}
