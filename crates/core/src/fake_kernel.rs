//! Scripted answers to VFIO's and iommufd's ioctls, for tests of what follows an answer that no kernel gives
//! on request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;

/// The ioctls that can be answered by a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    UnsetContainer,
    MapDma,
    UnmapDma,
    IoasMap,
    IoasUnmap,
    ResetDevice,
    HotReset,
}

thread_local! {
    static SCRIPT: RefCell<VecDeque<(Call, nix::Result<u64>)>> = const { RefCell::new(VecDeque::new()) };
}

/// Adds answers to the calls that this thread is about to make, in that order.
pub(crate) fn expect(answers: impl IntoIterator<Item = (Call, nix::Result<u64>)>) {
    SCRIPT.with_borrow_mut(|script| script.extend(answers));
}

/// Answers a call if the script has it next; without a script the real kernel is asked.
///
/// # Panics
/// If the script has another call next.
pub(crate) fn answer(call: Call) -> Option<nix::Result<u64>> {
    let (expected, answer) = SCRIPT.with_borrow_mut(VecDeque::pop_front)?;
    assert_eq!(call, expected, "not the call that the script has next");
    Some(answer)
}

/// How many answers of the script are left.
pub(crate) fn unused() -> usize {
    SCRIPT.with_borrow(VecDeque::len)
}

/// A descriptor that stands for one of VFIO or iommufd.
#[allow(clippy::unwrap_used)]
pub(crate) fn descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}
