//! Anonymous private memory, which keeps its bytes when it is mapped and unmapped.
//!
//! Private memory has no descriptor to map twice: mapping it *moves* its pages from its origin, a mapping that
//! belongs to it alone, to the reservation; unmapping moves them back (`moves.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::bytes::{ByteSink, ByteSource};
use super::charged::Charged;
use super::copy::{read_memory, write_memory};
use super::pieces::{Piece, overlapping};
use super::{budget, policy, sys};
use crate::dropper;
use crate::locked::lock;
use crate::range::{to_u64, to_usize};
use crate::{Error, ErrorCode, Range, Result, host_page_size};

/// Bytes of private memory on which one call of the kernel works while the lock is held.
const AT_ONCE: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Inner {
    /// The address of the mapping that holds the pages outside of reservations. Changes only while all of the memory
    /// is in a reservation, and the lock of the pieces is held.
    origin: AtomicUsize,
    pub(super) length: u64,
    page: u64,
    pub(super) pieces: Mutex<BTreeMap<u64, Piece>>,
}

/// Anonymous private memory. Clones share it; the last clone or the last mapping in a reservation releases it.
#[derive(Debug, Clone)]
pub struct PrivateMemory {
    pub(super) inner: Arc<Inner>,
}

impl PrivateMemory {
    /// Whether both are handles to the same memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Creates `length` zero bytes, which are not charged until they are accessed. The argument
    /// `transparent_huge_pages` requests huge pages (`MADV_HUGEPAGE`), if the kernel supports them.
    ///
    /// # Errors
    /// `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`, `ERR_ADDRESS_SPACE_LIMIT`, `ERR_MAPPING_LIMIT`.
    pub fn new(length: u64, transparent_huge_pages: bool) -> Result<Self> {
        let page = host_page_size()?;
        Range::new(0, length)?.check_aligned(page, "private memory")?;
        let size = to_usize(length)?;
        let align = if size >= sys::HUGE {
            sys::HUGE
        } else {
            to_usize(page)?
        };
        budget::charge(1)?;
        let origin = sys::map_anonymous(size, align, sys::protection(true)).map_err(|errno| {
            let code = if errno == Errno::ENOMEM {
                ErrorCode::AddressSpaceLimit
            } else {
                ErrorCode::System
            };
            Error::os(
                code,
                errno,
                "mmap",
                format!("reserving {length:#x} bytes of private memory"),
            )
        })?;
        let pieces = BTreeMap::from([(
            0,
            Piece {
                end: length,
                placed: None,
            },
        )]);
        let memory = Self {
            inner: Arc::new(Inner {
                origin: AtomicUsize::new(origin),
                length,
                page,
                pieces: Mutex::new(pieces),
            }),
        };
        if transparent_huge_pages {
            // SAFETY: the origin was mapped just now and is ours. Only advice: a kernel without huge pages returns
            // EINVAL, and base pages are used.
            let _ = unsafe { sys::advise(origin, size, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(memory)
    }

    /// The length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.inner.length
    }

    /// The page size in bytes.
    pub(crate) fn page_size(&self) -> u64 {
        self.inner.page
    }

    /// Fills `into` from `offset`, wherever the pages are.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`.
    pub fn read<'a>(&self, offset: u64, into: impl Into<ByteSink<'a>>) -> Result<()> {
        let mut rest = into.into();
        self.for_each_piece(offset, rest.len(), |address, length, operation| {
            read_memory(address, rest.take(length), operation)
        })
    }

    /// Writes `from` at `offset`, wherever the pages are.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`; `ERR_MEMORY_FAULT` if the pages are mapped read-only.
    pub fn write<'a>(&self, offset: u64, from: impl Into<ByteSource<'a>>) -> Result<()> {
        let mut rest = from.into();
        self.for_each_piece(offset, rest.len(), |address, length, operation| {
            let (now, later) = rest.split_at(length);
            rest = later;
            write_memory(address, now, operation)
        })
    }

    /// Allocates missing pages from NUMA node `node` only, wherever they are mapped, now or later.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` (no such node), `ERR_SYSTEM`.
    pub fn bind_to_node(&self, node: u32) -> Result<()> {
        policy::check_node(node)?;
        let pieces = lock(&self.inner.pieces);
        for (start, piece) in pieces.iter() {
            let at = piece.placed.unwrap_or(self.inner.origin_address(*start)?);
            let length = to_usize(piece.end.saturating_sub(*start))?;
            // SAFETY: the lock keeps the piece at its address; the range belongs to this memory.
            unsafe { policy::bind_to_node(at, length, node) }?;
        }
        Ok(())
    }

    /// Calls `each` with the address and the range of parts of `range`, all of them at the origin.
    ///
    /// The lock is held during each call, so that nobody maps the part. It is released in between: other threads read
    /// and write the rest.
    ///
    /// # Errors
    /// `ERR_VA_IN_USE` at the first part that is mapped in a reservation; the first error of `each`.
    pub(super) fn for_each_unplaced(
        &self,
        range: &Range,
        mut each: impl FnMut(usize, Range) -> Result<()>,
    ) -> Result<()> {
        let mut rest = Some(*range);
        while let Some(todo) = rest {
            let pieces = lock(&self.inner.pieces);
            let Some((start, piece)) = overlapping(&pieces, &todo).next() else {
                return Ok(());
            };
            let end = piece.end.min(todo.start().saturating_add(AT_ONCE));
            let part = Range::between(start, end).and_then(|all| all.intersection(&todo));
            let Some(part) = part else {
                return Ok(());
            };
            if piece.placed.is_some() {
                let message = format!("{part} of private memory is mapped. Unmap it first");
                return Err(Error::new(ErrorCode::VaInUse, message));
            }
            each(self.inner.origin_address(part.start())?, part)?;
            rest = Range::between(part.end(), range.end());
        }
        Ok(())
    }

    fn for_each_piece(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(usize, usize, std::fmt::Arguments<'_>) -> Result<()>,
    ) -> Result<()> {
        if length == 0 && offset <= self.inner.length {
            return Ok(());
        }
        let range = Range::new(offset, to_u64(length.max(1)))?;
        range.check_within(self.inner.length, "the private memory")?;
        let pieces = lock(&self.inner.pieces);
        for (start, piece) in overlapping(&pieces, &range) {
            let Some(part) =
                Range::between(start, piece.end).and_then(|all| all.intersection(&range))
            else {
                continue;
            };
            let base = piece.placed.unwrap_or(self.inner.origin_address(start)?);
            let address = plus(base, part.start().saturating_sub(start))?;
            each(
                address,
                to_usize(part.len())?,
                format_args!("copying {part} of private memory"),
            )?;
        }
        Ok(())
    }
}

impl Inner {
    pub(super) fn origin_address(&self, offset: u64) -> Result<usize> {
        plus(self.origin.load(Ordering::Relaxed), offset)
    }

    /// Replaces the origin by one that the kernel can move the memory to quickly. All of it was moved to `address`
    /// before.
    pub(super) fn realign_origin(&self, address: usize) {
        let Ok(size) = to_usize(self.length) else {
            return;
        };
        let place = |at| sys::place_in_table(at, size);
        if place(address) == place(self.origin.load(Ordering::Relaxed)) {
            return;
        }
        // The origin is empty. On failure it stays, and moving the pages back is slower.
        if let Ok(origin) = sys::map_like(address, size, sys::protection(true)) {
            let old = self.origin.swap(origin, Ordering::Relaxed);
            // SAFETY: the old origin is ours, and empty.
            let _ = unsafe { sys::unmap(old, size) };
        }
    }
}

/// Returns the address `offset` bytes after `base`.
fn plus(base: usize, offset: u64) -> Result<usize> {
    base.checked_add(to_usize(offset)?).ok_or_else(|| {
        let message = format!("{offset:#x} bytes of private memory from {base:#x} wrap around");
        Error::new(ErrorCode::OutOfRange, message)
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(size) = to_usize(self.length) {
            // SAFETY: the origin is ours, and nothing can refer to it after the last clone is dropped.
            let origin = unsafe { sys::Window::from_parts(*self.origin.get_mut(), size) };
            dropper::drop_memory(self.length, Charged::new(origin, 1));
        }
    }
}
