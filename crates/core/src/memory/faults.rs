//! Injected failures of system calls, for tests.

use std::cell::Cell;

use nix::errno::Errno;

/// The calls that can fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Move,
    Cover,
}

thread_local! {
    /// For each call, a mask of the next ones that fail: bit 0 is the next.
    static FAILING: Cell<[u32; 2]> = const { Cell::new([0; 2]) };
}

fn slot(failing: &mut [u32; 2], call: Call) -> &mut u32 {
    let [moves, covers] = failing;
    match call {
        Call::Move => moves,
        Call::Cover => covers,
    }
}

/// Makes some of this thread's next calls fail: bit 0 of `mask` is the next one, and so on.
pub(crate) fn inject(call: Call, mask: u32) {
    FAILING.with(|cell| {
        let mut failing = cell.get();
        *slot(&mut failing, call) = mask;
        cell.set(failing);
    });
}

/// Removes all injected failures.
pub(crate) fn clear() {
    FAILING.set([0; 2]);
}

/// Returns the injected failure; the call itself checks this.
pub(crate) fn check(call: Call) -> nix::Result<()> {
    FAILING.with(|cell| {
        let mut failing = cell.get();
        let mask = slot(&mut failing, call);
        let fails = *mask & 1 == 1;
        *mask >>= 1;
        cell.set(failing);
        if fails { Err(Errno::ENOMEM) } else { Ok(()) }
    })
}
