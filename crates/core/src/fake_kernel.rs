//! Scripted results of VFIO and iommufd ioctls. Tests use them for failures that no real kernel produces on request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crate::locked::lock;

/// The ioctls that a script can replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    UnsetContainer,
    MapDma,
    UnmapDma,
    IoasMap,
    IoasUnmap,
    Destroy,
    ResetDevice,
    HotReset,
}

type Script = Arc<Mutex<VecDeque<(Call, nix::Result<u64>)>>>;

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

/// Adds results for the next calls of this thread, in that order. Garbage that the thread queues for the dropper
/// takes the script along.
pub(crate) fn expect(answers: impl IntoIterator<Item = (Call, nix::Result<u64>)>) {
    SCRIPT.with_borrow(|script| lock(script).extend(answers));
}

/// Returns the scripted result of a call, or `None` to call the real kernel if there is no script. Each test ends
/// without a script, so that the real kernel destroys the remaining objects.
///
/// # Panics
/// If the script expects another call.
pub(crate) fn answer(call: Call) -> Option<nix::Result<u64>> {
    let next = SCRIPT.with_borrow(|script| {
        let mut script = lock(script);
        let (expected, _) = script.front()?;
        let answers = call != Call::Destroy || *expected == call;
        answers.then(|| script.pop_front()).flatten()
    });
    let (expected, answer) = next?;
    assert_eq!(call, expected, "the script expects another call");
    Some(answer)
}

/// Returns the number of results left in the script.
pub(crate) fn unused() -> usize {
    SCRIPT.with_borrow(|script| lock(script).len())
}

/// A value that is dropped with the script of the thread that created it.
pub(crate) struct Scripted<T> {
    script: Script,
    garbage: Option<T>,
}

impl<T> Scripted<T> {
    pub(crate) fn new(garbage: T) -> Self {
        Self {
            script: SCRIPT.with_borrow(Arc::clone),
            garbage: Some(garbage),
        }
    }
}

impl<T> Drop for Scripted<T> {
    fn drop(&mut self) {
        SCRIPT.set(Arc::clone(&self.script));
        drop(self.garbage.take());
    }
}

/// Returns a descriptor that stands in for one of VFIO or iommufd.
#[allow(clippy::unwrap_used)]
pub(crate) fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}
