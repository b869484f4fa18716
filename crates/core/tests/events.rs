//! Eventfds, and the thread that waits for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use common::{code, failure};
use nix::errno::Errno;
use nix::unistd::{dup, write};
use peerdma_core::ErrorCode;
use peerdma_core::event::{EventFd, Watcher};

/// Returns a watcher, and the receiver of its notifications.
fn watcher() -> (Watcher, Receiver<()>) {
    let (sender, receiver) = channel();
    let watcher = Watcher::new(move || {
        let _ = sender.send(());
    });
    (watcher.unwrap(), receiver)
}

#[test]
fn an_eventfd_counts() {
    let event = EventFd::new().unwrap();
    assert_eq!(event.take().unwrap(), 0);
    event.signal(2).unwrap();
    event.signal(0).unwrap();
    event.clone().signal(3).unwrap();
    assert_eq!(event.take().unwrap(), 5);
    assert_eq!(event.take().unwrap(), 0);
}

#[test]
fn rejects_a_signal_beyond_the_maximum_count() {
    let event = EventFd::new().unwrap();
    assert_eq!(code(event.signal(u64::MAX)), ErrorCode::OutOfRange);
    event.signal(u64::MAX - 1).unwrap();
    assert_eq!(code(event.signal(1)), ErrorCode::OutOfRange);
    assert_eq!(event.take().unwrap(), u64::MAX - 1);
}

/// Clears `O_NONBLOCK`, as any process with a duplicate of the descriptor can.
fn make_blocking(event: &EventFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(event, FcntlArg::F_SETFL(OFlag::O_RDWR)).unwrap();
}

#[test]
fn does_not_block_after_another_owner_has_cleared_the_flag() {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let event = EventFd::new().unwrap();
        make_blocking(&event);
        sender.send(event.take().unwrap()).unwrap();
        event.signal(u64::MAX - 1).unwrap();
        make_blocking(&event);
        assert_eq!(code(event.signal(1)), ErrorCode::OutOfRange);
        event.signal(0).unwrap();
        event.take().unwrap();
        event.signal(u64::MAX - 2).unwrap();
        make_blocking(&event);
        assert_eq!(code(event.signal(2)), ErrorCode::OutOfRange);
        event.signal(1).unwrap();
        make_blocking(&event);
        sender.send(event.take().unwrap()).unwrap();
    });
    let limit = std::time::Duration::from_secs(10);
    assert_eq!(receiver.recv_timeout(limit), Ok(0));
    assert_eq!(receiver.recv_timeout(limit), Ok(u64::MAX - 1));
}

#[test]
fn notifies_once_and_collects_the_count() {
    let (watcher, notified) = watcher();
    let (one, two) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    watcher.add(1, &one).unwrap();
    watcher.add(2, &two).unwrap();
    assert_eq!(watcher.collect().unwrap(), []);
    one.signal(1).unwrap();
    notified.recv().unwrap();
    // Without a collect, it counts and does not notify again.
    for _ in 0..999 {
        one.signal(1).unwrap();
    }
    assert_eq!(watcher.collect().unwrap(), [(1, 1000)]);
    assert!(notified.try_recv().is_err());
    two.signal(7).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(2, 7)]);
    assert_eq!(watcher.collect().unwrap(), []);
}

#[test]
fn does_not_notify_of_other_events_before_a_collect() {
    let (watcher, notified) = watcher();
    let (one, two) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    watcher.add(1, &one).unwrap();
    watcher.add(2, &two).unwrap();
    one.signal(1).unwrap();
    notified.recv().unwrap();
    two.signal(1).unwrap();
    // Gives the watcher time for a wrong notification; a correct one passes without it.
    std::thread::sleep(std::time::Duration::from_millis(50));
    drop(watcher);
    assert_eq!(notified.iter().count(), 0);
}

#[test]
fn loses_no_count_between_signalling_and_collecting_threads() {
    const THREADS: u64 = 4;
    const SIGNALS: u64 = 25_000;
    let (watcher, notified) = watcher();
    let events: Vec<EventFd> = (0..3).map(|_| EventFd::new().unwrap()).collect();
    for (id, event) in (10..).zip(&events) {
        watcher.add(id, event).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..SIGNALS {
                    events.iter().for_each(|event| event.signal(1).unwrap());
                }
            });
        }
        let mut counts = [0_u64; 3];
        while counts != [THREADS * SIGNALS; 3] {
            notified.recv().unwrap();
            for (id, count) in watcher.collect().unwrap() {
                counts[usize::try_from(id - 10).unwrap()] += count;
            }
        }
    });
    assert_eq!(watcher.collect().unwrap(), []);
}

#[test]
fn a_removed_event_is_not_collected_and_keeps_its_count() {
    let (watcher, notified) = watcher();
    let event = EventFd::new().unwrap();
    watcher.add(1, &event).unwrap();
    event.signal(3).unwrap();
    notified.recv().unwrap();
    watcher.remove(1).unwrap();
    assert_eq!(watcher.collect().unwrap(), []);
    watcher.remove(1).unwrap();
    // The next watcher of the event receives its count.
    watcher.add(2, &event).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(2, 3)]);
    watcher.remove(2).unwrap();
    event.signal(1).unwrap();
    assert_eq!(event.take().unwrap(), 1);
}

#[test]
fn ignores_a_count_that_another_reader_took() {
    let (watcher, notified) = watcher();
    let event = EventFd::new().unwrap();
    watcher.add(1, &event).unwrap();
    event.signal(1).unwrap();
    notified.recv().unwrap();
    assert_eq!(event.take().unwrap(), 1);
    assert_eq!(watcher.collect().unwrap(), []);
    event.signal(2).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(1, 2)]);
}

#[test]
fn rejects_an_id_or_eventfd_that_is_watched_already() {
    let (watcher, _told) = watcher();
    let event = EventFd::new().unwrap();
    watcher.add(1, &event).unwrap();
    let other = EventFd::new().unwrap();
    assert_eq!(code(watcher.add(1, &other)), ErrorCode::InvalidArgument);
    assert_eq!(
        code(watcher.add(u64::MAX, &other)),
        ErrorCode::InvalidArgument
    );
    let twice = failure(watcher.add(2, &event));
    assert_eq!(
        (twice.code(), twice.errno()),
        (ErrorCode::System, Some(Errno::EEXIST))
    );
    watcher.add(2, &other).unwrap();
}

#[test]
fn a_watcher_keeps_its_eventfds_until_its_thread_ends() {
    let (watcher, notified) = watcher();
    let event = EventFd::new().unwrap();
    // A duplicate, as the kernel or another process would have.
    let elsewhere = dup(&event).unwrap();
    watcher.add(1, &event).unwrap();
    drop(event);
    write(&elsewhere, &1_u64.to_ne_bytes()).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(1, 1)]);
    drop(watcher);
    // The thread has ended, and dropped `notify`.
    assert!(notified.recv().is_err());
    write(&elsewhere, &1_u64.to_ne_bytes()).unwrap();
}

#[test]
fn dropping_a_watcher_while_it_is_being_signalled_ends_it() {
    for round in 0..200_u64 {
        let notified = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&notified);
        let watcher = Watcher::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let event = EventFd::new().unwrap();
        watcher.add(round, &event).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    event.signal(1).unwrap();
                }
            });
            drop(watcher);
        });
        assert_eq!(Arc::strong_count(&notified), 1);
        assert_eq!(event.take().unwrap(), 100);
    }
}
