//! Moving the pages of private memory between its home and a reservation.
//!
//! `mremap` moves them, with `MREMAP_DONTUNMAP`: an empty mapping stays at the source, so no hole
//! ever opens that another thread's `mmap` could take.

use std::collections::BTreeMap;

use nix::sys::mman::ProtFlags;

use super::pieces::{Piece, overlapping, split};
use super::private::PrivateMemory;
use super::sys;
use crate::locked::lock;
use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

impl PrivateMemory {
    /// Moves the pages of `range` to `address` and sets their protection. On failure everything is
    /// back at home, and the target holds an inaccessible mapping, as before.
    ///
    /// # Errors
    /// `ERR_OVERLAP` where part of it is placed already, `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns `address..address + range.len()`, where nothing is placed.
    pub(crate) unsafe fn place(&self, range: &Range, address: usize, writable: bool) -> Result<()> {
        range.check_within(self.inner.length, "the private memory")?;
        let size = to_usize(range.len())?;
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
        split(&mut pieces, range.start());
        split(&mut pieces, range.end());
        let todo: Vec<(u64, Piece)> = overlapping(&pieces, range).collect();
        let what = format!("placing {range} of private memory");
        for (start, piece) in &todo {
            let to = address.saturating_add(to_usize(start.saturating_sub(range.start()))?);
            // SAFETY: home's part is ours and at home; the caller owns the target.
            if let Err(error) = unsafe { self.move_piece(&mut pieces, *start, *piece, Some(to)) } {
                self.bring_home(&mut pieces, range);
                // SAFETY: the caller owns the target; what was moved there is back at home.
                unsafe { give_back(address, size) };
                return Err(error.context(what));
            }
        }
        if writable {
            return Ok(());
        }
        // SAFETY: the pages were moved to the target just now.
        unsafe { sys::protect(address, size, ProtFlags::PROT_READ) }.map_err(|errno| {
            self.bring_home(&mut pieces, range);
            // SAFETY: as above.
            unsafe { give_back(address, size) };
            Error::os(ErrorCode::System, errno, "mprotect", what)
        })
    }

    /// Moves the pages of `range`, all of them placed, back home. What is left at their place is
    /// empty writable memory, for the caller to cover. On failure all are placed as before.
    ///
    /// # Errors
    /// `ERR_SYSTEM`.
    ///
    /// # Safety
    /// The caller owns the addresses where `range` is placed, and nobody relies on them.
    pub(crate) unsafe fn take_home(&self, range: &Range, writable: bool) -> Result<()> {
        let mut pieces = lock(&self.inner.pieces);
        split(&mut pieces, range.start());
        split(&mut pieces, range.end());
        let todo: Vec<(u64, Piece)> = overlapping(&pieces, range).collect();
        let what = format!("taking {range} of private memory back");
        for (index, (start, piece)) in todo.iter().enumerate() {
            // SAFETY: the caller owns where the piece is placed; home is ours and empty there.
            let moved = unsafe {
                self.unprotect(*start, *piece, writable)
                    .and_then(|()| self.move_piece(&mut pieces, *start, *piece, None))
            };
            if let Err(error) = moved {
                for (start, piece) in todo.iter().take(index.saturating_add(1)) {
                    let Some(at) = piece.placed else { continue };
                    let home = Piece {
                        placed: None,
                        ..*piece
                    };
                    // SAFETY: as above, the other way; the source of a move stays mapped.
                    unsafe {
                        if index_moved(&pieces, *start) {
                            let _ = self.move_piece(&mut pieces, *start, home, Some(at));
                        }
                        if let (false, Ok(size)) =
                            (writable, to_usize(piece.end.saturating_sub(*start)))
                        {
                            let _ = sys::protect(at, size, ProtFlags::PROT_READ);
                        }
                    }
                }
                return Err(error.context(what));
            }
        }
        Ok(())
    }

    /// Undoes the moves of a failed placement.
    fn bring_home(&self, pieces: &mut BTreeMap<u64, Piece>, range: &Range) {
        let moved: Vec<(u64, Piece)> = overlapping(pieces, range)
            .filter(|(_, piece)| piece.placed.is_some())
            .collect();
        for (start, piece) in moved {
            // SAFETY: the piece was placed by the caller a moment ago, at an address which the
            // caller owns; it is writable still, and its source at home is empty.
            let _ = unsafe { self.move_piece(pieces, start, piece, None) };
        }
    }

    /// Makes a read-only piece writable, for the way home: its protection travels with it.
    unsafe fn unprotect(&self, start: u64, piece: Piece, writable: bool) -> Result<()> {
        let (false, Some(at)) = (writable, piece.placed) else {
            return Ok(());
        };
        let size = to_usize(piece.end.saturating_sub(start))?;
        // SAFETY: the caller owns where the piece is placed.
        unsafe { sys::protect(at, size, sys::protection(true)) }.map_err(|errno| {
            Error::os(
                ErrorCode::System,
                errno,
                "mprotect",
                "making private memory writable",
            )
        })
    }

    /// Moves one piece to an address, or home for `None`, and records it.
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
        // SAFETY: passed on to the caller; a piece lies in one mapping.
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

/// Covers part of a reservation with an inaccessible mapping again.
unsafe fn give_back(address: usize, size: usize) {
    // SAFETY: passed on to the caller.
    let _ = unsafe { sys::cover(address, size, ProtFlags::PROT_NONE) };
}

fn index_moved(pieces: &BTreeMap<u64, Piece>, start: u64) -> bool {
    pieces
        .get(&start)
        .is_some_and(|piece| piece.placed.is_none())
}
