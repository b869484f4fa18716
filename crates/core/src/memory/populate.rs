//! Faults memory in before a device uses it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;

use super::pacer::Pacer;
use super::sys;
use crate::range::to_usize;
use crate::{Error, ErrorCode, Range, Result};

/// The size from which threads share the work.
const PARALLEL: u64 = 64 << 20;
/// The smallest chunk of a thread.
const CHUNK: u64 = 32 << 20;
/// The largest number of chunks.
const CHUNKS: u64 = 4096;
/// Bytes that one call faults in. No thread of the process can map memory meanwhile: less than half a millisecond for
/// pages of 4 KiB, unless the thread loses its processor.
const STEP: u64 = 1 << 20;
/// Page clearing saturates the memory bandwidth with fewer threads than this.
const THREADS: usize = 8;

/// Memory to fault in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The range in the reservation, for the address and for messages.
    pub(crate) range: Range,
    /// Whether to cause write faults instead of read faults. Then private and shared pages are allocated, not
    /// zero-mapped.
    pub(crate) writable: bool,
    /// The page size of the file: chunks are multiples of it.
    pub(crate) page_size: u64,
    /// Whether the pages come from the hugetlb pool.
    pub(crate) hugetlb: bool,
}

impl Target {
    /// Extends this target by the next if one call can fault both in. Returns whether it did.
    pub(crate) fn join(&mut self, next: &Self) -> bool {
        let alike = (self.writable, self.page_size, self.hugetlb)
            == (next.writable, next.page_size, next.hugetlb);
        let joined = Range::between(self.range.start(), next.range.end());
        let Some(joined) = joined.filter(|_| alike && self.range.end() == next.range.start())
        else {
            return false;
        };
        self.range = joined;
        true
    }
}

/// Faults in `targets` of a reservation that starts at address `base`.
///
/// # Errors
/// `ERR_MEMORY_FAULT` if an address has no memory (past the end of a file), `ERR_HUGE_PAGES_UNAVAILABLE`,
/// `ERR_SYSTEM`.
///
/// # Safety
/// The caller owns the targets and keeps them mapped during the call (a lease does).
pub(crate) unsafe fn populate(base: usize, targets: &[Target]) -> Result<()> {
    // SAFETY: the caller guarantees the targets.
    unsafe { populate_by(threads(bytes(targets)), base, targets) }
}

/// The number of bytes of targets.
pub(super) fn bytes(targets: &[Target]) -> u64 {
    let lengths = targets.iter().map(|target| target.range.len());
    lengths.fold(0, u64::saturating_add)
}

/// Returns the number of threads for so many bytes. Leaves one processor to the event loop: a thread that loses its
/// processor may hold the lock of the process's mappings meanwhile, which V8 requires to allocate memory.
pub(crate) fn threads(bytes: u64) -> usize {
    // Determining the number of processors reads files: not worth it for a page or two.
    if bytes < PARALLEL {
        return 1;
    }
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    processors.saturating_sub(1).clamp(1, THREADS)
}

/// As [`populate`], with a given number of threads.
///
/// # Safety
/// As for [`populate`].
pub(super) unsafe fn populate_by(threads: usize, base: usize, targets: &[Target]) -> Result<()> {
    if threads < 2 {
        let mut pacer = Pacer::new();
        // SAFETY: the caller guarantees the targets.
        return targets
            .iter()
            .try_for_each(|target| unsafe { populate_one(base, target, &mut pacer) });
    }
    // SAFETY: the caller guarantees the targets.
    unsafe { share(threads, base, targets, CHUNK.max(bytes(targets) / CHUNKS)) }
}

/// Distributes the chunks of the targets among threads.
///
/// # Safety
/// As for [`populate`].
unsafe fn share(threads: usize, base: usize, targets: &[Target], chunk: u64) -> Result<()> {
    let work: Vec<Target> = targets
        .iter()
        .flat_map(|target| chunks(target, chunk))
        .collect();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        let mut pacer = Pacer::new();
        while let Some(target) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            // SAFETY: the caller guarantees the targets; the threads end before this function does.
            if let Err(error) = unsafe { populate_one(base, target, &mut pacer) } {
                next.store(work.len(), Ordering::Relaxed);
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If no thread can be created, this one does all of the work.
            if thread::Builder::new()
                .name("peerdma-fault-in".into())
                .spawn_scoped(scope, worker)
                .is_err()
            {
                break;
            }
        }
        worker();
    });
    failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

/// Splits a target into parts of at least `size` bytes, at page borders.
fn chunks(target: &Target, size: u64) -> impl Iterator<Item = Target> {
    let target = *target;
    let step = size
        .max(target.page_size)
        .checked_next_multiple_of(target.page_size)
        .unwrap_or(u64::MAX);
    let mut at = target.range.start();
    std::iter::from_fn(move || {
        let end = at.saturating_add(step).min(target.range.end());
        let range = Range::between(at, end)?;
        at = end;
        Some(Target { range, ..target })
    })
}

/// # Safety
/// As for [`populate`].
unsafe fn populate_one(base: usize, target: &Target, pacer: &mut Pacer) -> Result<()> {
    chunks(target, STEP).try_for_each(|step| {
        pacer.pace();
        // SAFETY: the caller guarantees the target.
        unsafe { populate_step(base, &step) }
    })
}

/// # Safety
/// As for [`populate`].
unsafe fn populate_step(base: usize, target: &Target) -> Result<()> {
    let at = base.checked_add(to_usize(target.range.start())?);
    let at = at.ok_or_else(|| {
        let message = format!("{} has no host address", target.range);
        Error::new(ErrorCode::OutOfRange, message)
    })?;
    let length = to_usize(target.range.len())?;
    let (advice, syscall) = if target.writable {
        (
            MmapAdvise::MADV_POPULATE_WRITE,
            "madvise(MADV_POPULATE_WRITE)",
        )
    } else {
        (
            MmapAdvise::MADV_POPULATE_READ,
            "madvise(MADV_POPULATE_READ)",
        )
    };
    loop {
        // SAFETY: the caller guarantees the target; populating changes no contents.
        match unsafe { sys::advise(at, length, advice) } {
            Ok(()) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => {
                let code = match errno {
                    // hugetlb reports both an empty pool and the end of the file as a fault. The caller distinguishes
                    // them.
                    Errno::EFAULT | Errno::ENOMEM if target.hugetlb => {
                        ErrorCode::HugePagesUnavailable
                    }
                    Errno::EFAULT | Errno::EHWPOISON => ErrorCode::MemoryFault,
                    _ => ErrorCode::System,
                };
                return Err(Error::os(
                    code,
                    errno,
                    syscall,
                    format!("faulting in {}", target.range),
                )
                .at(target.range));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, MemoryFile, Window, protection};

    #[test]
    fn threads_fault_in_all_chunks_and_report_a_failure() {
        const PAGES: u64 = 64;
        let file = MemoryFile::create(PAGES * 4096, "chunks", HugePages::None).unwrap();
        let length = usize::try_from((PAGES + 1) * 4096).unwrap();
        let window = file.with_fd(|fd| Window::new(length, protection(true), fd, 0));
        let window = window.unwrap().unwrap();
        let populate = |start: u64, pages: u64| {
            let target = Target {
                range: Range::new(start * 4096, pages * 4096).unwrap(),
                writable: true,
                page_size: 4096,
                hugetlb: false,
            };
            // SAFETY: the window stays until the test ends.
            unsafe { share(4, window.address(), &[target], 4096) }
        };
        populate(0, PAGES).unwrap();
        let blocks = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap().st_blocks);
        assert_eq!(u64::try_from(blocks.unwrap()).unwrap() * 512, PAGES * 4096);
        // The last page is past the end of the file.
        let error = populate(PAGES - 8, 9).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MemoryFault);
        assert_eq!(error.range().unwrap().start(), PAGES * 4096);
    }

    #[test]
    fn chunks_cover_the_target_in_whole_pages() {
        let range = Range::new(1 << 30, (100 << 20) + 4096).unwrap();
        let target = Target {
            range,
            writable: true,
            page_size: 4096,
            hugetlb: false,
        };
        let parts: Vec<Target> = chunks(&target, CHUNK).collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(
            parts.iter().map(|part| part.range.len()).sum::<u64>(),
            range.len()
        );
        let huge = Target {
            page_size: 1 << 30,
            range: Range::new(0, 3 << 30).unwrap(),
            ..target
        };
        assert!(chunks(&huge, CHUNK).all(|part| part.range.len() == 1 << 30));
    }
}
