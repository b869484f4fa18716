//! The pieces of private memory, sorted by offset, which cover all of it.

use std::collections::BTreeMap;

use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

/// A part of the memory in one kernel mapping (`mremap` moves at most one at once).
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) end: u64,
    /// The address in a reservation that holds the pages; `None` for the origin.
    pub(super) placed: Option<usize>,
}

/// Iterates over the pieces that overlap `range`, in order.
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

/// Splits the piece that contains `at` in its interior. Both parts of a kernel mapping can be moved.
///
/// # Errors
/// `ERR_OUT_OF_RANGE` for a piece whose pages would wrap around the address space; nothing changes then.
pub(super) fn split(pieces: &mut BTreeMap<u64, Piece>, at: u64) -> Result<()> {
    let Some((start, piece)) = pieces.range_mut(..at).next_back() else {
        return Ok(());
    };
    if piece.end <= at {
        return Ok(());
    }
    let delta = to_usize(at.saturating_sub(*start))?;
    let placed = match piece.placed {
        None => None,
        Some(address) => Some(address.checked_add(delta).ok_or_else(|| {
            let message = format!("{delta:#x} bytes from address {address:#x} wrap around");
            Error::new(ErrorCode::OutOfRange, message)
        })?),
    };
    let tail = Piece {
        end: piece.end,
        placed,
    };
    piece.end = at;
    pieces.insert(at, tail);
    Ok(())
}

/// Whether [`split`] would split a piece: `at` is in the interior of one.
pub(super) fn is_within_piece(pieces: &BTreeMap<u64, Piece>, at: u64) -> bool {
    pieces
        .range(..at)
        .next_back()
        .is_some_and(|(_, piece)| piece.end > at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn does_not_split_a_piece_that_would_wrap_around_the_address_space() {
        let piece = |placed| BTreeMap::from([(0, Piece { end: 100, placed })]);
        let mut pieces = piece(Some(usize::MAX - 10));
        assert!(split(&mut pieces, 50).is_err());
        assert_eq!((pieces.len(), pieces.get(&0).unwrap().end), (1, 100));
        let mut pieces = piece(Some(usize::MAX - 60));
        split(&mut pieces, 50).unwrap();
        assert_eq!(pieces.get(&50).unwrap().placed, Some(usize::MAX - 10));
        let mut pieces = piece(None);
        split(&mut pieces, 50).unwrap();
        assert_eq!(pieces.get(&50).unwrap().placed, None);
    }
}
