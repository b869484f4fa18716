//! Moving the pages of private memory between its home and a reservation.
//!
//! `mremap` moves them, with `MREMAP_DONTUNMAP`: an empty mapping stays at the source, so no hole
//! ever opens that another thread's `mmap` could take.

use std::collections::BTreeMap;

use nix::sys::mman::ProtFlags;

use super::pieces::{Piece, is_within_piece, overlapping, split};
use super::private::PrivateMemory;
use super::sys;
use crate::locked::lock;
use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

impl PrivateMemory {
    /// Moves the pages of `range` to `address`. On failure it moves back what it had moved. A piece for which that fails too stays at the target, for the caller to
    /// find with [`placed_at`](Self::placed_at) and to keep; the rest of the target is the caller's
    /// to cover.
    ///
    /// # Errors
    /// `ERR_OVERLAP` where part of it is placed already, `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns `address..address + range.len()`, where nothing is placed, and goes on owning
    /// what [`placed_at`](Self::placed_at) tells of it, whether this succeeds or not.
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
                format!("{taken} of the private memory is placed already"),
            ));
        }
        split(&mut pieces, range.start())?;
        split(&mut pieces, range.end())?;
        let what = || format!("placing {range} of private memory");
        let todo = overlapping(&pieces, range)
            .map(|(start, piece)| {
                let within = start.checked_sub(range.start()).map(to_usize).transpose()?;
                let to = within.and_then(|within| address.checked_add(within));
                let to = to.ok_or_else(|| {
                    Error::new(
                        ErrorCode::OutOfRange,
                        format!("{}: it wraps around", what()),
                    )
                })?;
                Ok((start, piece, to))
            })
            .collect::<Result<Vec<_>>>()?;
        for (start, piece, to) in todo {
            // SAFETY: home's part is ours and at home; the caller owns the target.
            if let Err(error) = unsafe { self.move_piece(&mut pieces, start, piece, Some(to)) } {
                // SAFETY: the caller owns the target, and nobody relies on it yet.
                unsafe { self.bring_home(&mut pieces, range) };
                return Err(error.context(what()));
            }
        }
        if range.len() == self.inner.length {
            self.inner.move_home_like(address);
        }
        Ok(())
    }

    /// Moves the pages of `range`, all of them placed, back home. What is left at their place is
    /// empty memory, for the caller to cover. On failure it puts back what it had taken.
    /// A piece for which that fails too is at home from then on;
    /// [`placed_at`](Self::placed_at) tells which are not.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns the addresses where `range` is placed, and nobody relies on them.
    pub(crate) unsafe fn take_home(&self, range: &Range) -> Result<()> {
        let mut pieces = lock(&self.inner.pieces);
        split(&mut pieces, range.start())?;
        split(&mut pieces, range.end())?;
        let todo: Vec<(u64, Piece)> = overlapping(&pieces, range).collect();
        for (index, (start, piece)) in todo.iter().enumerate() {
            // SAFETY: the caller owns where the piece is placed; home is ours and empty there.
            let moved = unsafe { self.move_piece(&mut pieces, *start, *piece, None) };
            if let Err(error) = moved {
                for (start, piece) in todo.iter().take(index.saturating_add(1)) {
                    // SAFETY: as above, the other way; the source of a move stays mapped.
                    unsafe { self.put_back(&mut pieces, *start, *piece) };
                }
                return Err(error.context(format!("taking {range} of private memory back")));
            }
        }
        Ok(())
    }

    /// How many kernel mappings moving `range` to a reservation adds at most, at home and between its
    /// pieces; the borders of the place they move to come on top.
    pub(crate) fn cost_of_moving(&self, range: &Range) -> usize {
        let splits = self.cost_of_splitting(range);
        let pieces = lock(&self.inner.pieces);
        let inside = overlapping(&pieces, range).count().saturating_sub(1);
        inside.saturating_add(splits)
    }

    /// How many kernel mappings there are more at home when `range` gets pieces of its own.
    pub(crate) fn cost_of_splitting(&self, range: &Range) -> usize {
        let pieces = lock(&self.inner.pieces);
        [range.start(), range.end()]
            .into_iter()
            .filter(|at| is_within_piece(&pieces, *at))
            .count()
    }

    /// Those parts of `range` which are placed where they are when all of it is placed at `address`.
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

    /// Undoes the moves of a failed placement, as far as that can be done.
    ///
    /// # Safety
    /// As for [`place`](Self::place), which placed what is placed of `range`.
    unsafe fn bring_home(&self, pieces: &mut BTreeMap<u64, Piece>, range: &Range) {
        let moved: Vec<(u64, Piece)> = overlapping(pieces, range)
            .filter(|(_, piece)| piece.placed.is_some())
            .collect();
        for (start, piece) in moved {
            // SAFETY: the piece was placed a moment ago, at an address which the caller owns, and its
            // source at home is empty. What fails stays where it is, and its record says so.
            let _ = unsafe { self.move_piece(pieces, start, piece, None) };
        }
    }

    /// Puts one piece of a failed [`take_home`](Self::take_home) back where it was placed before, as
    /// far as that can be done; its record says where it is.
    ///
    /// # Safety
    /// As for [`take_home`](Self::take_home); `piece` is what the record said before.
    unsafe fn put_back(&self, pieces: &mut BTreeMap<u64, Piece>, start: u64, piece: Piece) {
        let (Some(at), Some(now)) = (piece.placed, pieces.get(&start).copied()) else {
            return;
        };
        if now.placed.is_none() {
            // SAFETY: the caller owns where the piece was placed, and its source stays mapped.
            let _ = unsafe { self.move_piece(pieces, start, now, Some(at)) };
        }
    }

    /// Moves one piece to an address, or home for `None`, and records it. On failure piece and record
    /// are as before, and the target is mapped, empty.
    ///
    /// # Safety
    /// The caller owns both places; nobody relies on what is mapped at the target.
    unsafe fn move_piece(
        &self,
        pieces: &mut BTreeMap<u64, Piece>,
        start: u64,
        piece: Piece,
        to: Option<usize>,
    ) -> Result<()> {
        let home = self.inner.at_home(start)?;
        let (source, target) = (piece.placed.unwrap_or(home), to.unwrap_or(home));
        let size = to_usize(piece.end.saturating_sub(start))?;
        // SAFETY: passed on to the caller; a piece lies in one mapping. `refill` replaces nothing.
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
