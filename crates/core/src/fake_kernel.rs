//! Scripted answers to VFIO's and iommufd's ioctls, for tests of what follows an answer that no kernel gives
//! on request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crate::locked::lock;

/// The ioctls that can be answered by a script.
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

/// Adds answers to the calls that this thread is about to make, in that order. Garbage that it leaves to the dropper's
/// thread takes the script along.
pub(crate) fn expect(answers: impl IntoIterator<Item = (Call, nix::Result<u64>)>) {
    SCRIPT.with_borrow(|script| lock(script).extend(answers));
}

/// Answers a call if the script has it next; without a script the real kernel is asked. So it is to destroy what the
/// script does not mention: each test ends with that.
///
/// # Panics
/// If the script has another call next.
pub(crate) fn answer(call: Call) -> Option<nix::Result<u64>> {
    let next = SCRIPT.with_borrow(|script| {
        let mut script = lock(script);
        let (expected, _) = script.front()?;
        let answers = call != Call::Destroy || *expected == call;
        answers.then(|| script.pop_front()).flatten()
    });
    let (expected, answer) = next?;
    assert_eq!(call, expected, "not the call that the script has next");
    Some(answer)
}

/// How many answers of the script are left.
pub(crate) fn unused() -> usize {
    SCRIPT.with_borrow(|script| lock(script).len())
}

/// Is dropped with the script of the thread that made it.
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

/// A descriptor that stands for one of VFIO or iommufd.
#[allow(clippy::unwrap_used)]
pub(crate) fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}
