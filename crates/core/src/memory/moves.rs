//! Moves the pages of private memory between its origin and a reservation.
//!
//! `mremap` with `MREMAP_DONTUNMAP` moves them: an empty mapping remains at the source, so no hole opens that another
//! thread's `mmap` could fill.

use std::collections::BTreeMap;

use nix::sys::mman::ProtFlags;

use super::pieces::{Piece, is_within_piece, overlapping, split};
use super::private::PrivateMemory;
use super::sys;
use crate::locked::lock;
use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

impl PrivateMemory {
    /// Moves the pages of `range` to `address`. On failure it moves them back. A piece that cannot be moved back
    /// stays at the target: the caller finds it with [`placed_at`](Self::placed_at) and must keep it. The caller
    /// covers the rest of the target.
    ///
    /// # Errors
    /// `ERR_OVERLAP` if a part of it is mapped already, `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns `address..address + range.len()`, where nothing is mapped, and still owns what
    /// [`placed_at`](Self::placed_at) returns of it, on success or failure.
    pub(crate) unsafe fn place(&self, range: &Range, address: usize) -> Result<()> {
        range.check_within(self.inner.length, "the private memory")?;
        let mut pieces = lock(&self.inner.pieces);
        if let Some((start, piece)) =
            overlapping(&pieces, range).find(|(_, piece)| piece.placed.is_some())
        {
            let taken =
                Range::between(start, piece.end).and_then(|taken| taken.intersection(range));
            let taken = taken.map(|taken| taken.to_string()).unwrap_or_default();
            return Err(Error::new(
                ErrorCode::Overlap,
                format!("{taken} of the private memory is mapped already"),
            ));
        }
        split(&mut pieces, range.start())?;
        split(&mut pieces, range.end())?;
        let operation = || format!("mapping {range} of private memory");
        let todo = overlapping(&pieces, range)
            .map(|(start, piece)| {
                let within = start.checked_sub(range.start()).map(to_usize).transpose()?;
                let to = within.and_then(|within| address.checked_add(within));
                let to = to.ok_or_else(|| {
                    Error::new(
                        ErrorCode::OutOfRange,
                        format!("{}: it wraps around", operation()),
                    )
                })?;
                Ok((start, piece, to))
            })
            .collect::<Result<Vec<_>>>()?;
        for (start, piece, to) in todo {
            // SAFETY: the origin's part is ours and holds the pages; the caller owns the target.
            if let Err(error) = unsafe { self.move_piece(&mut pieces, start, piece, Some(to)) } {
                // SAFETY: the caller owns the target, and nobody relies on it yet.
                unsafe { self.revert_moves(&mut pieces, range) };
                return Err(error.context(operation()));
            }
        }
        if range.len() == self.inner.length {
            self.inner.realign_origin(address);
        }
        Ok(())
    }

    /// Moves the pages of `range`, all of them mapped in a reservation, back to the origin. Leaves empty memory,
    /// which the caller covers. On failure it moves the pages to their places again. A piece for which that fails too
    /// stays at the origin; [`placed_at`](Self::placed_at) returns the others.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns the addresses at which `range` is mapped, and nobody relies on them.
    pub(crate) unsafe fn return_to_origin(&self, range: &Range) -> Result<()> {
        let mut pieces = lock(&self.inner.pieces);
        split(&mut pieces, range.start())?;
        split(&mut pieces, range.end())?;
        let todo: Vec<(u64, Piece)> = overlapping(&pieces, range).collect();
        for (index, (start, piece)) in todo.iter().enumerate() {
            // SAFETY: the caller owns the piece's place; the origin is ours and empty there.
            let moved = unsafe { self.move_piece(&mut pieces, *start, *piece, None) };
            if let Err(error) = moved {
                for (start, piece) in todo.iter().take(index.saturating_add(1)) {
                    // SAFETY: as above, in the other direction; the source of a move stays mapped.
                    unsafe { self.put_back(&mut pieces, *start, *piece) };
                }
                return Err(error.context(format!("moving {range} of private memory back")));
            }
        }
        Ok(())
    }

    /// Returns the largest number of kernel mappings that moving `range` to a reservation adds. It counts those at the
    /// origin and between its pieces. The borders of the target are not included.
    pub(crate) fn cost_of_moving(&self, range: &Range) -> usize {
        let splits = self.cost_of_splitting(range);
        let pieces = lock(&self.inner.pieces);
        let inside = overlapping(&pieces, range).count().saturating_sub(1);
        inside.saturating_add(splits)
    }

    /// Returns the number of kernel mappings that splitting `range` into pieces adds at the origin.
    pub(crate) fn cost_of_splitting(&self, range: &Range) -> usize {
        let pieces = lock(&self.inner.pieces);
        [range.start(), range.end()]
            .into_iter()
            .filter(|at| is_within_piece(&pieces, *at))
            .count()
    }

    /// Returns the parts of `range` that are mapped at their place in a mapping of all of it at `address`.
    pub(crate) fn placed_at(&self, range: &Range, address: usize) -> Vec<Range> {
        let pieces = lock(&self.inner.pieces);
        overlapping(&pieces, range)
            .filter_map(|(start, piece)| {
                let part = Range::between(start, piece.end)?.intersection(range)?;
                let within = to_usize(part.start().checked_sub(start)?).ok()?;
                let delta = to_usize(part.start().checked_sub(range.start())?).ok()?;
                let at = piece.placed?.checked_add(within)?;
                (Some(at) == address.checked_add(delta)).then_some(part)
            })
            .collect()
    }

    /// Reverts the moves of a failed [`place`](Self::place), as far as possible.
    ///
    /// # Safety
    /// As for [`place`](Self::place), which moved the parts of `range`.
    unsafe fn revert_moves(&self, pieces: &mut BTreeMap<u64, Piece>, range: &Range) {
        let moved: Vec<(u64, Piece)> = overlapping(pieces, range)
            .filter(|(_, piece)| piece.placed.is_some())
            .collect();
        for (start, piece) in moved {
            // SAFETY: the piece was moved a moment ago, to an address that the caller owns, and its source at the
            // origin is empty. On failure the piece and its record stay as they are.
            let _ = unsafe { self.move_piece(pieces, start, piece, None) };
        }
    }

    /// Moves one piece of a failed return to its former place, as far as possible. The record of the piece has its
    /// address.
    ///
    /// # Safety
    /// As for [`return_to_origin`](Self::return_to_origin); `piece` is the former record.
    unsafe fn put_back(&self, pieces: &mut BTreeMap<u64, Piece>, start: u64, piece: Piece) {
        let (Some(at), Some(now)) = (piece.placed, pieces.get(&start).copied()) else {
            return;
        };
        if now.placed.is_none() {
            // SAFETY: the caller owns the piece's former place, and its source stays mapped.
            let _ = unsafe { self.move_piece(pieces, start, now, Some(at)) };
        }
    }

    /// Moves one piece to an address, or to the origin for `None`, and records it. On failure the piece and its
    /// record are unchanged, and the target is mapped, empty.
    ///
    /// # Safety
    /// The caller owns both places; nobody relies on the target's mapping.
    unsafe fn move_piece(
        &self,
        pieces: &mut BTreeMap<u64, Piece>,
        start: u64,
        piece: Piece,
        to: Option<usize>,
    ) -> Result<()> {
        let origin = self.inner.origin_address(start)?;
        let (source, target) = (piece.placed.unwrap_or(origin), to.unwrap_or(origin));
        let size = to_usize(piece.end.saturating_sub(start))?;
        // SAFETY: the caller owns both places; a piece lies in one mapping. `refill` replaces nothing.
        unsafe {
            sys::move_pages(source, target, size).map_err(|errno| {
                let empty = if to.is_some() {
                    ProtFlags::PROT_NONE
                } else {
                    sys::protection(true)
                };
                sys::refill(target, size, empty);
                Error::os(
                    ErrorCode::System,
                    errno,
                    "mremap",
                    format!("moving {size:#x} bytes"),
                )
            })?;
        }
        pieces.insert(
            start,
            Piece {
                placed: to,
                ..piece
            },
        );
        Ok(())
    }
}
