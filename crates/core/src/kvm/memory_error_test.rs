//! Memory errors of a real virtual machine. No kernel makes one on request: the test sends its signal.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::exits::{Exit, Exits, Next};
use super::slots::PAGE;
use super::{Machine, memory_error, test_machine};
use crate::Range;

/// The page of the first instruction, at 16 bytes before its end.
const RESET: u64 = 0xffff_f000;
const RESET_OFFSET: u64 = 0xff0;

/// Sends the signal of an error at an address to the calling thread. Other threads must not send it.
fn signal_memory_error(address: u64) {
    #[repr(C)]
    struct Info {
        signo: i32,
        errno: i32,
        code: i32,
        pad: i32,
        address: u64,
        rest: [u64; 13],
    }
    let info = Info {
        signo: memory_error::SIGNAL as i32,
        errno: 0,
        code: libc::BUS_MCEERR_AR,
        pad: 0,
        address,
        rest: [0; 13],
    };
    // SAFETY: the kernel reads the 128 bytes of `info`. The thread blocks the signal, except in the guest.
    let result = unsafe {
        let (process, thread) = (libc::getpid(), libc::gettid());
        let call = libc::SYS_rt_tgsigqueueinfo;
        libc::syscall(call, process, thread, info.signo, &raw const info)
    };
    assert_eq!(result, 0);
}

/// The next exit of the processor. The receiver sleeps then: the processor notifies it of the exit after that.
fn next(exits: &Exits, notifications: &Receiver<()>) -> Exit {
    notifications.recv_timeout(Duration::from_secs(10)).unwrap();
    let mut taken = false;
    loop {
        match exits.next() {
            Next::Exit(0) => taken = true,
            Next::Idle => break,
            _ => {}
        }
    }
    assert!(taken);
    exits.cells().first().unwrap().exit()
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_memory_error_stops_the_processor_with_its_guest_address() {
    // The thread of the processor calls this, when it posts an exit.
    let address = Arc::new(AtomicU64::new(0));
    let of_next = Arc::clone(&address);
    let (sender, notifications) = channel();
    let notify = move || {
        match of_next.swap(0, Ordering::SeqCst) {
            0 => {}
            address => signal_memory_error(address),
        }
        sender.send(()).unwrap();
    };
    let exits = Arc::new(Exits::new(1, notify));
    let machine = Machine::new(Arc::clone(&exits)).unwrap();
    let space = test_machine::reservation(1);
    let code = [0xe6, 0x80, 0xeb, 0xfc]; // out 0x80, al; jmp to it
    let host_address = {
        let lease = space.lease(0, PAGE).unwrap();
        lease.write(RESET_OFFSET, code.as_slice()).unwrap();
        lease.host_address()
    };
    test_machine::map(&machine, &space, Range::new(RESET, PAGE).unwrap(), 0).unwrap();
    let with_slot = (1, RESET + 0x123);
    for (at, (length, data)) in [(host_address + 0x123, with_slot), (0x1000, (0, 0))] {
        address.store(at, Ordering::SeqCst);
        machine.run().unwrap();
        assert_eq!(next(&exits, &notifications).address, 0x80);
        exits.answer(0);
        let stopped = Exit {
            kind: 5,
            length,
            address: 9,
            data,
        };
        assert_eq!(next(&exits, &notifications), stopped);
        machine.request_pause();
        exits.answer(0);
        let (sender, paused) = channel();
        let send = move || sender.send(()).unwrap();
        machine.when_paused(send).unwrap();
        paused.recv().unwrap();
        while exits.next() != Next::Idle {}
    }
    machine.close().unwrap();
}
