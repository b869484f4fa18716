//! The memory-mapping system calls, on plain addresses. Addresses are `usize`s: only the kernel accesses the memory
//! behind them. The exception is an access to a device's register (`vfio/access.rs`), through a volatile pointer.
//!
//! No mapping made here is inherited by child processes (`MADV_DONTFORK`): `fork` would copy every pinned page of
//! private memory, and the page tables of BARs, for a child that calls `exec` right away. The kernel merges only
//! mappings of equal flags, so every mapping receives this flag, at once.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use libc::c_void;
use nix::errno::Errno;
use nix::sys::mman::{
    MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mremap, munmap,
};

use crate::Range;

/// The page cache of a part of a file (`struct cachestat` of the kernel, include/uapi/linux/mman.h).
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CacheStat {
    /// Pages in the cache, cleared or not.
    pub(crate) nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    /// Pages that were in the cache and are swapped out now.
    pub(crate) nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// The number of `cachestat` on x86-64 and arm64, which libc lacks for glibc.
const SYS_CACHESTAT: libc::c_long = 451;

/// Counts the pages of a part of a file. `ENOSYS` before Linux 6.5.
pub(crate) fn cachestat(fd: BorrowedFd<'_>, range: &Range) -> nix::Result<CacheStat> {
    let part = [range.start(), range.len()];
    let mut stat = CacheStat::default();
    // SAFETY: the kernel reads `part`, which has the layout of `struct cachestat_range`, and writes `stat`.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            fd.as_raw_fd(),
            part.as_ptr(),
            &raw mut stat,
            0_u32,
        )
    };
    Errno::result(result).map(|_| stat)
}

/// Returns the protection of a mapping.
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

/// Maps `length` bytes of private anonymous memory at a multiple of `align`. The memory is not charged until it is
/// accessed. `align` is a power of two of at least a page.
pub(crate) fn map_anonymous(length: usize, align: usize, prot: ProtFlags) -> nix::Result<usize> {
    let padded = length.checked_add(align).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel picks unused addresses.
    let raw = address(unsafe { mmap_anonymous(None, non_zero(padded)?, prot, flags) }?);
    let base = raw.checked_next_multiple_of(align).unwrap_or(raw);
    let head = base.saturating_sub(raw);
    let tail = align.saturating_sub(head);
    // SAFETY: head and tail are the ends of the new mapping; nobody else refers to them yet.
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

/// Returns the size of the largest page table on x86-64 that `length` bytes can fill, in covered bytes.
const fn table_size(length: usize) -> usize {
    if length < GIB { HUGE } else { GIB }
}

/// Returns the offset of an address in the largest page table that `length` bytes can fill. Between mappings at equal
/// offsets the kernel moves whole tables instead of single pages.
pub(super) fn place_in_table(address: usize, length: usize) -> usize {
    address.checked_rem(table_size(length)).unwrap_or(0)
}

/// Maps `length` bytes as [`map_anonymous`], at the same offset in a page table as address `model`.
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

/// Excludes `at..at + length` from child processes that `fork` creates from now on.
///
/// # Safety
/// The caller owns that range of addresses, which is mapped throughout.
unsafe fn keep_from_children(at: usize, length: usize) {
    // SAFETY: the caller owns the range; the advice concerns only the child's copy of it. The kernel refuses only
    // when it has no memory for its own records. Then children cost more; nothing else changes.
    let _ = unsafe { advise(at, length, MmapAdvise::MADV_DONTFORK) };
}

/// The size of a huge page, and of the range of one entry of a third-level page table, on x86-64.
pub(super) const HUGE: usize = 1 << 21;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;
/// The lowest base of a reservation: V8 uses random addresses below.
const LOWEST: usize = 64 * TIB;
/// The first base tried is random, within this many GiB from there.
const RANDOM: usize = 4 << 10;
/// The number of bases to try, 1 TiB apart, up to the 128 TiB of a process on x86-64.
const TRIES: usize = 64;

/// Reserves `length` bytes of inaccessible address space, aligned to 1 GiB.
///
/// The kernel places mappings from the top down. It would place all mappings after a large reservation right below
/// it, in the middle of the address space; after the reservation is released, they would leave no gap for another one
/// of its size. V8 uses random addresses below 64 TiB. So a reservation goes between the two, from 64 TiB up. Its
/// base is random, because guest-controlled memory should not have a known address. If nothing is free there, the
/// kernel chooses.
pub(crate) fn reserve(length: usize) -> nix::Result<usize> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    let first = LOWEST.saturating_add(random_below(RANDOM).saturating_mul(GIB));
    for attempt in 0..TRIES {
        let at = NonZeroUsize::new(first.saturating_add(attempt.saturating_mul(TIB)));
        // SAFETY: MAP_FIXED_NOREPLACE replaces nothing: it fails if something is mapped there.
        match unsafe { mmap_anonymous(at, non_zero(length)?, ProtFlags::PROT_NONE, flags) } {
            Ok(raw) if Some(address(raw)) == at.map(NonZeroUsize::get) => {
                // SAFETY: mapped just now.
                unsafe { keep_from_children(address(raw), length) };
                return Ok(address(raw));
            }
            // Linux before 4.17 treats the address as a hint. SAFETY: mapped just now; nothing else refers to it.
            Ok(raw) => unsafe { unmap(address(raw), length) }?,
            Err(Errno::EEXIST) => {}
            Err(_) => break,
        }
    }
    map_anonymous(length, GIB, ProtFlags::PROT_NONE)
}

/// Returns a number below `limit` that differs between processes and calls; not for secrets.
fn random_below(limit: usize) -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random)
        .unwrap_or(0)
        .checked_rem(limit)
        .unwrap_or(0)
}

/// Maps a file, shared, at an address that the kernel chooses.
pub(crate) fn map_file(
    length: usize,
    prot: ProtFlags,
    fd: BorrowedFd<'_>,
    offset: i64,
) -> nix::Result<usize> {
    // SAFETY: without MAP_FIXED the kernel picks unused addresses.
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
/// The caller owns that range of addresses and nobody relies on its mappings.
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

/// Replaces the mappings in `at..at + length` by empty anonymous memory with protection `prot`.
///
/// # Safety
/// The caller owns that range of addresses and nobody relies on its mappings.
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

/// Fills a hole with empty memory, and keeps existing mappings. Returns whether there was a hole: a failed call with
/// `MAP_FIXED` or `MREMAP_FIXED` can leave one.
///
/// The kernel checks its limits before it removes the old mapping, so a hole is very unlikely; but an `mmap` of any
/// thread could map memory there, in the middle of the reservation.
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn refill(at: usize, length: usize, prot: ProtFlags) -> bool {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    let Ok(size) = non_zero(length) else {
        return false;
    };
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing: it fails with EEXIST if something is mapped there.
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
/// The caller owns both ranges, they do not overlap, and nobody relies on the target's mappings.
pub(crate) unsafe fn move_pages(from: usize, to: usize, length: usize) -> nix::Result<()> {
    let flags =
        MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED | MRemapFlags::MREMAP_DONTUNMAP;
    #[cfg(test)]
    super::faults::check(super::faults::Call::Move)?;
    // SAFETY: the caller owns both ranges; MREMAP_DONTUNMAP keeps the source mapped.
    unsafe { mremap(pointer(from)?, length, length, flags, Some(pointer(to)?)) }.map(drop)
}

/// Advises the kernel about `at..at + length`; `advice` must not drop contents.
///
/// # Safety
/// The caller owns that range of addresses.
pub(crate) unsafe fn advise(at: usize, length: usize, advice: MmapAdvise) -> nix::Result<()> {
    // SAFETY: the caller owns the range and passes no advice that drops contents.
    unsafe { madvise(pointer(at)?, length, advice) }
}

#[cfg(test)]
thread_local! {
    /// The number of calls of [`unmap`] by this thread.
    pub(super) static UNMAPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Releases the memory of `at..at + length` in the file that is mapped there, shared. All mappings of it read zeros
/// then.
///
/// # Safety
/// The caller owns that range of addresses, and that part of the file.
pub(crate) unsafe fn remove(at: usize, length: usize) -> nix::Result<()> {
    // SAFETY: the caller owns the memory to release.
    unsafe { madvise(pointer(at)?, length, MmapAdvise::MADV_REMOVE) }
}

/// Removes the mapping of `at..at + length` and releases the addresses.
///
/// # Safety
/// The caller owns that range of addresses, and never uses it again.
pub(crate) unsafe fn unmap(at: usize, length: usize) -> nix::Result<()> {
    #[cfg(test)]
    UNMAPS.set(UNMAPS.get().saturating_add(1));
    // SAFETY: the caller releases the range.
    unsafe { munmap(pointer(at)?, length) }
}

/// The bytes that one call unmaps, in about 2 ms. No thread of the process can map memory meanwhile.
pub(super) const PIECE: usize = 16 << 20;

/// Removes the mapping of `at..at + length` piece by piece, the last first, and releases the addresses.
///
/// # Safety
/// The caller owns that range of addresses, and never uses it again.
pub(crate) unsafe fn unmap_in_pieces(at: usize, length: usize) -> nix::Result<()> {
    let mut left = length;
    while left > PIECE {
        let rest = left.saturating_sub(PIECE);
        // SAFETY: the caller releases the range.
        if unsafe { unmap(at.saturating_add(rest), PIECE) }.is_err() {
            break; // larger pages, or the mapping limit is reached: unmaps all at once
        }
        left = rest;
    }
    // SAFETY: as above.
    unsafe { unmap(at, left) }
}

/// An owned mapping, usually of a file, which is unmapped on drop.
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

    /// Takes ownership of a mapping.
    ///
    /// # Safety
    /// The caller owns that range of addresses, which is mapped throughout, and passes it to the window.
    pub(crate) const unsafe fn from_parts(address: usize, length: usize) -> Self {
        Self { address, length }
    }

    /// Unmaps the window in one call, which is fast if no page was accessed.
    pub(crate) fn unmap_untouched(self) {
        // SAFETY: the window was mapped by `new`, and its drop is skipped.
        let _ = unsafe { unmap(self.address, self.length) };
        std::mem::forget(self);
    }

    pub(crate) const fn address(&self) -> usize {
        self.address
    }

    /// Returns the address at `offset`, or `None` if it is beyond the window.
    pub(crate) fn at(&self, offset: usize) -> Option<usize> {
        self.address
            .checked_add(offset)
            .filter(|_| offset < self.length)
    }

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

/// Discards the pages of `at..at + length` of anonymous memory, which reads as zeros then. Memory that is locked
/// (`mlockall`) stays locked, from Linux 5.18 on: before, `EINVAL`.
///
/// # Safety
/// The caller owns that range of addresses, and nobody relies on its contents.
pub(crate) unsafe fn discard(at: usize, length: usize) -> nix::Result<()> {
    // SAFETY: the caller owns the range, and nobody relies on its contents.
    let result = unsafe { madvise(pointer(at)?, length, MmapAdvise::MADV_DONTNEED) };
    if result != Err(Errno::EINVAL) {
        return result;
    }
    // SAFETY: as above.
    let status =
        unsafe { libc::madvise(pointer(at)?.as_ptr(), length, libc::MADV_DONTNEED_LOCKED) };
    Errno::result(status).map(drop)
}
