//! The common parts of address spaces of type1 and iommufd: records of mappings, and handles.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;

use crate::batch::{Batch, BatchError, MapRequest, Memory, unmap_each};
use crate::dropper;
use crate::locked::{lock, owned};
use crate::mappings::Mappings;
use crate::{Error, ErrorCode, Range, Result};

/// The guarded state of an address space, which calls the kernel.
pub(crate) trait SpaceState: Send + Sized + 'static {
    /// The owner of mapped memory, which a record keeps.
    type Owner;
    /// Owners of removed records, to drop together after the locks are released.
    type Removed: Default + Extend<Self::Owner>;
    /// The part of the address space that the lock does not guard.
    type Unguarded: fmt::Debug + Send + Sync;

    fn mappings(&self) -> &Mappings<Self::Owner>;

    /// Checks before a batch that the address space is not closed.
    fn check_open(&self) -> Result<()>;

    /// Removes the mappings that lie wholly in a range.
    fn unmap(&mut self, range: &Range, removed: &mut Self::Removed) -> Result<()>;

    /// Removes all mappings. If the kernel succeeds, none is left, whatever size it reports; if it fails, all records
    /// keep their memory.
    fn unmap_all(&mut self, removed: &mut Self::Removed) -> Result<()>;

    /// Called when the last owner is dropped. An address space that nobody closed goes to the dropper's thread.
    fn end(&mut self, unguarded: &mut Self::Unguarded);
}

/// An address space, for its handles and the groups or devices attached to it.
#[derive(Debug)]
pub(crate) struct Space<S: SpaceState> {
    state: Mutex<S>,
    /// The number of mappings, readable without waiting for a call in progress.
    count: AtomicUsize,
    pub(crate) unguarded: S::Unguarded,
}

impl<S: SpaceState> Space<S> {
    pub(crate) fn new(state: S, unguarded: S::Unguarded) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            count: AtomicUsize::new(0),
            unguarded,
        })
    }

    /// Locks the state, for a call that changes no mapping.
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }

    /// Returns the number of recorded mappings. Does not wait for a call in progress.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Changes mappings. The owners of removed records are dropped after the lock is released.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut S, &mut S::Removed) -> R) -> R {
        let mut removed = S::Removed::default();
        let mut state = self.lock();
        let result = change(&mut state, &mut removed);
        self.count.store(state.mappings().len(), Ordering::Relaxed);
        drop(state);
        result
    }

    /// Makes all mappings of a batch or none. `map` makes and records one.
    pub(crate) fn map(
        &self,
        batch: &mut Batch,
        mut map: impl FnMut(&mut S, &MapRequest, Memory<'_>, &mut S::Removed) -> Result<()>,
    ) -> Result<(), BatchError> {
        self.change(|state, removed| {
            state.check_open()?;
            batch.map(
                &mut (state, removed),
                |(state, removed), request, memory| map(state, request, memory, removed),
                |(state, removed), range| state.unmap(range, removed),
            )
        })
    }

    /// Unmaps ranges, and returns those that failed; without `continue_after_failure`, stops at the first.
    pub(crate) fn unmap(
        &self,
        ranges: &[Range],
        continue_after_failure: bool,
    ) -> Vec<(usize, Error)> {
        self.change(|state, removed| {
            unmap_each(ranges, continue_after_failure, |range| {
                state.unmap(range, removed)
            })
        })
    }

    /// Removes all mappings.
    pub(crate) fn unmap_all(&self) -> Result<()> {
        self.change(S::unmap_all)
    }
}

impl<S: SpaceState> Drop for Space<S> {
    fn drop(&mut self) {
        owned(&mut self.state).end(&mut self.unguarded);
    }
}

/// The handle that the clones of an address space share, without the attached groups or devices. After the last clone
/// the dropper's thread unmaps everything, because no caller can do so any more.
#[derive(Debug)]
pub(crate) struct Handle<S: SpaceState>(Arc<Space<S>>);

impl<S: SpaceState> Handle<S> {
    pub(crate) fn new(space: &Arc<Space<S>>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(space)))
    }
}

impl<S: SpaceState> Drop for Handle<S> {
    fn drop(&mut self) {
        if self.0.count() > 0 {
            dropper::drop_later(WithoutHandle(Arc::clone(&self.0)));
        }
    }
}

/// An address space with mappings and without a handle.
struct WithoutHandle<S: SpaceState>(Arc<Space<S>>);

impl<S: SpaceState> Drop for WithoutHandle<S> {
    fn drop(&mut self) {
        // Mappings that the kernel fails to unmap stay on record, and keep their memory.
        let _ = self.0.unmap_all();
    }
}

/// Checks the result of an unmap: the kernel's size must match the records.
pub(crate) fn check_unmapped(
    syscall: &'static str,
    range: &Range,
    expected: u64,
    answer: nix::Result<u64>,
) -> Result<()> {
    match answer {
        Ok(size) if size == expected => Ok(()),
        // Some kernels return ENOENT if there is no mapping at all.
        Err(Errno::ENOENT) if expected == 0 => Ok(()),
        Ok(size) => {
            let message = format!(
                "unmapping IOVA {range}: the kernel unmapped {size:#x} bytes, but {expected:#x} bytes were mapped there"
            );
            Err(Error::new(ErrorCode::UnmapFailed, message))
        }
        Err(errno) => Err(unmap_refused(syscall, range, errno)),
    }
}

/// The error of an unmap of `range` that the kernel refused.
pub(crate) fn unmap_refused(syscall: &'static str, range: &Range, errno: Errno) -> Error {
    let operation = format!("unmapping IOVA {range}");
    Error::os(ErrorCode::UnmapFailed, errno, syscall, operation)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unmap_must_match_the_records() {
        let range = Range::new(0x1000, 0x3000).unwrap();
        let check = |expected, answer| check_unmapped("ioctl(UNMAP)", &range, expected, answer);
        for size in [0, 0x2000, 0x3000] {
            check(size, Ok(size)).unwrap();
        }
        check(0, Err(Errno::ENOENT)).unwrap();
        let wrong = check(0x2000, Ok(0x1000)).unwrap_err();
        assert_eq!(wrong.code(), ErrorCode::UnmapFailed);
        let sizes = ["0x1000 bytes", "0x2000 bytes"];
        assert!(
            sizes.iter().all(|size| wrong.message().contains(size)),
            "{wrong}"
        );
        for (expected, errno) in [(0, Errno::EINVAL), (0x3000, Errno::ENOENT)] {
            let refused = check(expected, Err(errno)).unwrap_err();
            assert_eq!(
                (refused.code(), refused.errno()),
                (ErrorCode::UnmapFailed, Some(errno))
            );
        }
    }
}
