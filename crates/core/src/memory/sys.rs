//! The memory-mapping system calls, on plain addresses. Addresses are `usize`s: the kernel gets at
//! what is behind them. Only single accesses to a device's registers (`vfio/access.rs`) go through a
//! pointer, a volatile one.
//!
//! Nothing that is mapped here is for child processes (`MADV_DONTFORK`): `fork` would copy every page of private memory
//! that is pinned, and the page tables of BARs, for a child that calls `exec` right away. The kernel joins mappings of
//! equal flags alone, so every mapping gets this one, at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use libc::c_void;
use nix::errno::Errno;
use nix::sys::mman::{
    MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mremap, munmap,
};

/// What a mapping allows.
pub(crate) fn protection(writable: bool) -> ProtFlags {
    if writable {
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
    } else {
        ProtFlags::PROT_READ
    }
}

fn pointer(address: usize) -> nix::Result<NonNull<c_void>> {
    NonNull::new(ptr::with_exposed_provenance_mut(address)).ok_or(Errno::EINVAL)
}

fn address(pointer: NonNull<c_void>) -> usize {
    pointer.as_ptr().expose_provenance()
}

fn non_zero(length: usize) -> nix::Result<NonZeroUsize> {
    NonZeroUsize::new(length).ok_or(Errno::EINVAL)
}

/// Maps `length` bytes of private anonymous memory which is not charged until touched, at an address
/// that is a multiple of `align` (a power of two of at least a page).
pub(crate) fn map_anonymous(length: usize, align: usize, prot: ProtFlags) -> nix::Result<usize> {
    let padded = length.checked_add(align).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
    let raw = address(unsafe { mmap_anonymous(None, non_zero(padded)?, prot, flags) }?);
    let base = raw.checked_next_multiple_of(align).unwrap_or(raw);
    let head = base.saturating_sub(raw);
    let tail = align.saturating_sub(head);
    // SAFETY: head and tail are the ends of what was mapped just now; nobody else knows of them yet.
    unsafe {
        if head > 0 {
            unmap(raw, head)?;
        }
        if tail > 0 {
            unmap(base.saturating_add(length), tail)?;
        }
        keep_from_children(base, length);
    }
    Ok(base)
}

/// Bytes that the largest page table covers which `length` bytes may fill, on x86-64.
const fn table_size(length: usize) -> usize {
    if length < GIB { HUGE } else { GIB }
}

/// The place of an address in the largest page table that `length` bytes from there on may fill. Between mappings at
/// the same place the kernel moves whole tables, instead of page after page.
pub(super) fn place_in_table(address: usize, length: usize) -> usize {
    address.checked_rem(table_size(length)).unwrap_or(0)
}

/// Maps `length` bytes as [`map_anonymous`] does, at the same place in a page table as address `model`.
pub(super) fn map_like(model: usize, length: usize, prot: ProtFlags) -> nix::Result<usize> {
    let within = place_in_table(model, length);
    let padded = length.checked_add(within).ok_or(Errno::ENOMEM)?;
    let raw = map_anonymous(padded, table_size(length), prot)?;
    if within > 0 {
        // SAFETY: mapped just now; nothing else refers to it.
        unsafe { unmap(raw, within) }?;
    }
    Ok(raw.saturating_add(within))
}

/// Keeps `at..at + length` out of the child processes that `fork` makes from now on.
///
/// # Safety
/// The caller owns that range of addresses, all of which is mapped.
unsafe fn keep_from_children(at: usize, length: usize) {
    // SAFETY: the caller owns the range; the advice concerns the child's copy of it alone.
    // The kernel refuses only when it has no memory left for its own records. Children cost more then; nothing else
    // changes.
    let _ = unsafe { advise(at, length, MmapAdvise::MADV_DONTFORK) };
}

/// Bytes of a huge page, and what one entry of the third level of page tables covers, on x86-64.
pub(super) const HUGE: usize = 1 << 21;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;
/// Where bases of reservations begin: V8 scatters its heap over the addresses below.
const LOWEST: usize = 64 * TIB;
/// The first base tried is random, this many GiB from there.
const RANDOM: usize = 4 << 10;
/// From there to the 128 TiB that a process has on x86-64, in steps of 1 TiB.
const TRIES: usize = 64;

/// Reserves `length` bytes of inaccessible address space, aligned to 1 GiB.
///
/// The kernel places mappings from the top down. A large reservation placed there too would make it
/// place all later ones right below, in the middle of the address space; after the reservation is
/// gone those would leave no gap for another one of its size. V8 for its part asks for random
/// addresses below 64 TiB. So a reservation goes between the two, from 64 TiB up: at a random base,
/// because what a guest controls should not have a known address. Where nothing is free the kernel
/// chooses.
pub(crate) fn reserve(length: usize) -> nix::Result<usize> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    let first = LOWEST.saturating_add(random_below(RANDOM).saturating_mul(GIB));
    for attempt in 0..TRIES {
        let at = NonZeroUsize::new(first.saturating_add(attempt.saturating_mul(TIB)));
        // SAFETY: MAP_FIXED_NOREPLACE replaces nothing: it fails where something is mapped.
        match unsafe { mmap_anonymous(at, non_zero(length)?, ProtFlags::PROT_NONE, flags) } {
            Ok(raw) if Some(address(raw)) == at.map(NonZeroUsize::get) => {
                // SAFETY: mapped just now.
                unsafe { keep_from_children(address(raw), length) };
                return Ok(address(raw));
            }
            // A kernel before 4.17 takes the address for a hint.
            // SAFETY: mapped just now; nothing else refers to it.
            Ok(raw) => unsafe { unmap(address(raw), length) }?,
            Err(Errno::EEXIST) => {}
            Err(_) => break,
        }
    }
    map_anonymous(length, GIB, ProtFlags::PROT_NONE)
}

/// Some number below `limit`, another one in each process and call; not for secrets.
fn random_below(limit: usize) -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random)
        .unwrap_or(0)
        .checked_rem(limit)
        .unwrap_or(0)
}

/// Maps a file wherever the kernel likes, shared.
pub(crate) fn map_file(
    length: usize,
    prot: ProtFlags,
    fd: BorrowedFd<'_>,
    offset: i64,
) -> nix::Result<usize> {
    // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
    let raw = unsafe {
        mmap(
            None,
            non_zero(length)?,
            prot,
            MapFlags::MAP_SHARED,
            fd,
            offset,
        )
    }?;
    // SAFETY: mapped just now.
    unsafe { keep_from_children(address(raw), length) };
    Ok(address(raw))
}

/// Maps a file over `at..at + length`, shared. A failure may leave a hole: see [`refill`].
///
/// # Safety
/// The caller owns that range of addresses and nobody relies on what is mapped there.
pub(crate) unsafe fn map_file_at(
    at: usize,
    length: usize,
    prot: ProtFlags,
    fd: BorrowedFd<'_>,
    offset: i64,
) -> nix::Result<()> {
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
    // SAFETY: the caller owns the range that MAP_FIXED replaces.
    unsafe {
        mmap(
            NonZeroUsize::new(at),
            non_zero(length)?,
            prot,
            flags,
            fd,
            offset,
        )?;
        keep_from_children(at, length);
    }
    Ok(())
}

/// Replaces whatever is at `at..at + length` by empty anonymous memory with protection `prot`.
///
/// # Safety
/// The caller owns that range of addresses and nobody relies on what is mapped there.
pub(crate) unsafe fn cover(at: usize, length: usize, prot: ProtFlags) -> nix::Result<()> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
    #[cfg(test)]
    super::faults::check(super::faults::Call::Cover)?;
    // SAFETY: the caller owns the range that MAP_FIXED replaces.
    unsafe {
        mmap_anonymous(NonZeroUsize::new(at), non_zero(length)?, prot, flags)?;
        keep_from_children(at, length);
    }
    Ok(())
}

/// After a failed call with `MAP_FIXED` or `MREMAP_FIXED`: maps empty memory where that call left a
/// hole, and leaves alone what is still mapped. Returns whether there was a hole.
///
/// The kernel checks its limits before it removes the old mapping, so a hole is next to impossible;
/// were it left, the next `mmap` of any thread could land in the middle of the reservation.
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn refill(at: usize, length: usize, prot: ProtFlags) -> bool {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    let Ok(size) = non_zero(length) else {
        return false;
    };
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing: it fails with EEXIST where something is mapped.
    let filled = unsafe { mmap_anonymous(NonZeroUsize::new(at), size, prot, flags) }.is_ok();
    if filled {
        // SAFETY: mapped just now, in a range that the caller owns.
        unsafe { keep_from_children(at, length) };
    }
    filled
}

/// Moves the pages of `from..from + length`, which lies in one mapping, over `to..to + length`.
/// The source stays mapped, empty. A failure may leave a hole at the target: see [`refill`].
///
/// # Safety
/// The caller owns both ranges, they are apart, and nobody relies on what is mapped at the target.
pub(crate) unsafe fn move_pages(from: usize, to: usize, length: usize) -> nix::Result<()> {
    let flags =
        MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED | MRemapFlags::MREMAP_DONTUNMAP;
    #[cfg(test)]
    super::faults::check(super::faults::Call::Move)?;
    // SAFETY: the caller owns both ranges; MREMAP_DONTUNMAP keeps the source mapped.
    unsafe { mremap(pointer(from)?, length, length, flags, Some(pointer(to)?)) }.map(drop)
}

/// Advises the kernel about `at..at + length`; `advice` must not be one that drops contents.
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn advise(at: usize, length: usize, advice: MmapAdvise) -> nix::Result<()> {
    // SAFETY: the caller owns the range and passes no advice which drops contents.
    unsafe { madvise(pointer(at)?, length, advice) }
}

#[cfg(test)]
thread_local! {
    /// How many calls of [`unmap`] this thread has made.
    pub(super) static UNMAPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Takes the memory of `at..at + length` out of the file that is mapped there, shared: it reads as zeros everywhere.
///
/// # Safety
/// The caller owns that range of addresses, and that part of the file.
pub(crate) unsafe fn remove(at: usize, length: usize) -> nix::Result<()> {
    // SAFETY: the caller owns the memory that goes.
    unsafe { madvise(pointer(at)?, length, MmapAdvise::MADV_REMOVE) }
}

/// Removes the mapping of `at..at + length` and gives the addresses up.
///
/// # Safety
/// The caller owns that range of addresses, and never uses it again.
pub(crate) unsafe fn unmap(at: usize, length: usize) -> nix::Result<()> {
    #[cfg(test)]
    UNMAPS.set(UNMAPS.get().saturating_add(1));
    // SAFETY: the caller gives the range up.
    unsafe { munmap(pointer(at)?, length) }
}

/// Bytes that one call unmaps: it takes some 2 ms, and no thread of the process can map anything meanwhile.
pub(super) const PIECE: usize = 16 << 20;

/// Removes the mapping of `at..at + length` piece by piece, the last first, and gives the addresses up.
///
/// # Safety
/// The caller owns that range of addresses, and never uses it again.
pub(crate) unsafe fn unmap_in_pieces(at: usize, length: usize) -> nix::Result<()> {
    let mut left = length;
    while left > PIECE {
        let rest = left.saturating_sub(PIECE);
        // SAFETY: the caller gives the range up.
        if unsafe { unmap(at.saturating_add(rest), PIECE) }.is_err() {
            break; // larger pages, or no room for one mapping more: all at once then
        }
        left = rest;
    }
    // SAFETY: as above.
    unsafe { unmap(at, left) }
}

/// Memory mapped somewhere, a file most often, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Window {
    address: usize,
    length: usize,
}

impl Window {
    /// Maps `length` bytes of `fd` from `offset`.
    pub(crate) fn new(
        length: usize,
        prot: ProtFlags,
        fd: BorrowedFd<'_>,
        offset: i64,
    ) -> nix::Result<Self> {
        Ok(Self {
            address: map_file(length, prot, fd, offset)?,
            length,
        })
    }

    /// Takes over a mapping.
    ///
    /// # Safety
    /// The caller owns that range of addresses, all of which is mapped, and leaves it to the window.
    pub(crate) const unsafe fn from_parts(address: usize, length: usize) -> Self {
        Self { address, length }
    }

    /// Unmaps it in one call, which is quick if no page of it was touched.
    pub(crate) fn unmap_untouched(self) {
        // SAFETY: the window was mapped by `new`, and is forgotten.
        let _ = unsafe { unmap(self.address, self.length) };
        std::mem::forget(self);
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> usize {
        self.address
    }

    /// The address `offset` bytes after its start; `None` where that is not in the window.
    pub(crate) fn at(&self, offset: usize) -> Option<usize> {
        self.address
            .checked_add(offset)
            .filter(|_| offset < self.length)
    }

    /// How long it is, in bytes.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the window is ours, and its address is not used after this.
        let _ = unsafe { unmap_in_pieces(self.address, self.length) };
    }
}
