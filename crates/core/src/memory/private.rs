//! Anonymous private memory, which keeps its bytes wherever they are placed.
//!
//! Private memory has no descriptor to map twice: placing it means *moving* its pages from its home,
//! a mapping that belongs to it alone, to the reservation; taking it out moves them back (`moves.rs`).

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

#[derive(Debug)]
pub(super) struct Inner {
    /// Changes only while all of the memory is placed, and the lock of the pieces is held.
    home: AtomicUsize,
    pub(super) length: u64,
    page: u64,
    pub(super) pieces: Mutex<BTreeMap<u64, Piece>>,
}

/// Anonymous private memory. Clones share it; it lives until the last clone and the last placement
/// are gone.
#[derive(Debug, Clone)]
pub struct PrivateMemory {
    pub(super) inner: Arc<Inner>,
}

impl PrivateMemory {
    /// Whether both are handles of the same memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// `length` zero bytes, not charged until touched. `transparent_huge_pages` asks for huge pages
    /// (`MADV_HUGEPAGE`), where the kernel has them.
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
        let home = sys::map_anonymous(size, align, sys::protection(true)).map_err(|errno| {
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
                home: AtomicUsize::new(home),
                length,
                page,
                pieces: Mutex::new(pieces),
            }),
        };
        if transparent_huge_pages {
            // SAFETY: home was mapped just now and is ours. Advice only: a kernel without huge pages
            // answers EINVAL, and base pages do as well.
            let _ = unsafe { sys::advise(home, size, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(memory)
    }

    /// In bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.inner.length
    }

    /// The size of its pages in bytes.
    pub(crate) fn page_size(&self) -> u64 {
        self.inner.page
    }

    /// Fills `into` from `offset`, wherever the pages are now.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`.
    pub fn read<'a>(&self, offset: u64, into: impl Into<ByteSink<'a>>) -> Result<()> {
        let mut rest = into.into();
        self.for_each_piece(offset, rest.len(), |address, length, what| {
            read_memory(address, rest.take(length), what)
        })
    }

    /// Writes `from` at `offset`, wherever the pages are now.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`; `ERR_MEMORY_FAULT` where the pages are placed read-only.
    pub fn write<'a>(&self, offset: u64, from: impl Into<ByteSource<'a>>) -> Result<()> {
        let mut rest = from.into();
        self.for_each_piece(offset, rest.len(), |address, length, what| {
            let (now, later) = rest.split_at(length);
            rest = later;
            write_memory(address, now, what)
        })
    }

    /// Takes pages from NUMA node `node` only, where they are not allocated yet; wherever they are
    /// placed, now or later.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` (no such node), `ERR_SYSTEM`.
    pub fn bind_to_node(&self, node: u32) -> Result<()> {
        policy::check_node(node)?;
        let pieces = lock(&self.inner.pieces);
        for (start, piece) in pieces.iter() {
            let at = piece.placed.unwrap_or(self.inner.at_home(*start)?);
            let length = to_usize(piece.end.saturating_sub(*start))?;
            // SAFETY: the lock keeps the piece where it is; the range belongs to this memory.
            unsafe { policy::bind_to_node(at, length, node) }?;
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
            let base = piece.placed.unwrap_or(self.inner.at_home(start)?);
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
    pub(super) fn at_home(&self, offset: u64) -> Result<usize> {
        plus(self.home.load(Ordering::Relaxed), offset)
    }

    /// After all of the memory was placed at `address`: gives it another home, to which the kernel moves it quickly.
    pub(super) fn move_home_like(&self, address: usize) {
        let Ok(size) = to_usize(self.length) else {
            return;
        };
        let place = |at| sys::place_in_table(at, size);
        if place(address) == place(self.home.load(Ordering::Relaxed)) {
            return;
        }
        // It is empty. A refusal leaves the home as it is, and the way home slower.
        if let Ok(home) = sys::map_like(address, size, sys::protection(true)) {
            let old = self.home.swap(home, Ordering::Relaxed);
            // SAFETY: the old home is ours, and nothing is there any more.
            let _ = unsafe { sys::unmap(old, size) };
        }
    }
}

/// The address `offset` bytes after `base`.
fn plus(base: usize, offset: u64) -> Result<usize> {
    base.checked_add(to_usize(offset)?).ok_or_else(|| {
        let message = format!("{offset:#x} bytes of private memory from {base:#x} wrap around");
        Error::new(ErrorCode::OutOfRange, message)
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(size) = to_usize(self.length) {
            // SAFETY: home is ours, and nothing can name it once the last clone is gone.
            let home = unsafe { sys::Window::from_parts(*self.home.get_mut(), size) };
            dropper::drop_memory(self.length, Charged::new(home, 1));
        }
    }
}
