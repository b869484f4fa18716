//! How private memory is cut up: its pieces, sorted by offset, which cover all of it.

use std::collections::BTreeMap;

use crate::Range;

/// A part of the memory which lies in one kernel mapping (`mremap` moves no more than that at once).
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) end: u64,
    /// Where its pages are: at home, or at this address of a reservation.
    pub(super) placed: Option<usize>,
}

/// The pieces that have anything in common with `range`, in order.
pub(super) fn overlapping(
    pieces: &BTreeMap<u64, Piece>,
    range: &Range,
) -> impl Iterator<Item = (u64, Piece)> {
    let (start, end) = (range.start(), range.end());
    let first = pieces
        .range(..=start)
        .next_back()
        .map_or(start, |(first, _)| *first);
    pieces
        .range(first..end)
        .map(|(start, piece)| (*start, *piece))
        .filter(move |(_, piece)| piece.end > start)
}

/// Makes `at` a border between pieces. Part of one mapping is still in one mapping.
pub(super) fn split(pieces: &mut BTreeMap<u64, Piece>, at: u64) {
    let Some((start, piece)) = pieces.range_mut(..at).next_back() else {
        return;
    };
    if piece.end <= at {
        return;
    }
    let delta = usize::try_from(at.saturating_sub(*start)).unwrap_or(0);
    let tail = Piece {
        end: piece.end,
        placed: piece.placed.map(|address| address.saturating_add(delta)),
    };
    piece.end = at;
    pieces.insert(at, tail);
}

/// Whether [`split`] would do anything: `at` is in the middle of a piece.
pub(super) fn is_within_piece(pieces: &BTreeMap<u64, Piece>, at: u64) -> bool {
    pieces
        .range(..at)
        .next_back()
        .is_some_and(|(_, piece)| piece.end > at)
}
