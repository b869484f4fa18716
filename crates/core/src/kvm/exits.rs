//! Exits: accesses of the guest that its threads post, and one receiver answers.
//!
//! A processor posts an exit in its cell, and waits for the answer. The receiver sleeps until it is notified. While
//! exits follow one another closely, both sides spin for a short time instead, which saves two wake-ups an exit. On one
//! processor of the host, a side that spins would keep the other one from running. There the receiver sleeps for that
//! time where it is, which saves the way through its event loop.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::locked::lock;

/// The states of a post.
const EMPTY: u32 = 0;
const POSTED: u32 = 1;
const TAKEN: u32 = 2;
const ANSWERED: u32 = 3;
const CANCELLED: u32 = 4;

/// Waits at most this long, and only after a wait that was shorter. It is longer than a wake-up, also in a virtual
/// machine, where that takes some 40 µs: otherwise spinning would not begin again after one sleep.
const WAIT: Duration = Duration::from_micros(60);
/// The receiver returns to its event loop at least this often.
const TURN: Duration = Duration::from_millis(2);

/// An exit, as the receiver reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The number of the kind, which the caller of [`Exits::post`] chooses.
    pub kind: u32,
    /// The width of an access in bytes.
    pub length: u32,
    pub address: u64,
    pub data: u64,
}

/// The exit of one processor in memory that the receiver reads without a call. Nothing here trusts what the receiver
/// writes to it.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ExitCell {
    kind: AtomicU32,
    length: AtomicU32,
    address: AtomicU64,
    /// The value of a write; the answer to a read.
    data: AtomicU64,
}

const _: () = assert!(size_of::<ExitCell>() == 64);

#[cfg(test)]
impl ExitCell {
    /// Returns the exit in the cell.
    pub(super) fn exit(&self) -> Exit {
        Exit {
            kind: self.kind.load(Ordering::Relaxed),
            length: self.length.load(Ordering::Relaxed),
            address: self.address.load(Ordering::Relaxed),
            data: self.data.load(Ordering::Relaxed),
        }
    }
}

/// The state of a cell, out of the receiver's reach.
#[derive(Debug, Default)]
struct Post {
    state: AtomicU32,
    /// The thread that posts.
    thread: OnceLock<Thread>,
    /// The times of the last exit and of the last answer, in nanoseconds.
    posted: AtomicU64,
    answered: AtomicU64,
    /// Whether the last answer came within [`WAIT`].
    spins: AtomicBool,
}

/// The result of [`Exits::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The processor of an exit that the receiver has taken.
    Exit(usize),
    /// There is none. The receiver is notified of the next one.
    Idle,
    /// The receiver's turn is over: it calls again after its event loop has had a turn.
    TurnOver,
}

/// The cells of all processors, and their receiver.
pub struct Exits {
    cells: Box<[ExitCell]>,
    posts: Box<[Post]>,
    /// The origin of times.
    origin: Instant,
    /// Whether the receiver is notified or at work.
    awake: AtomicBool,
    /// Whether the last exit came within [`WAIT`] after the answer to the one before.
    receiver_waits: AtomicBool,
    /// Whether the receiver and the last thread that posted were on two processors of the host.
    is_apart: AtomicBool,
    /// The processor of the host that executed the receiver at the last answer.
    receiver_cpu: AtomicUsize,
    receiver_thread: OnceLock<Thread>,
    receiver: Mutex<Receiver>,
    notify: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Receiver {
    /// The index after the last one taken.
    next: usize,
    /// The start of this turn.
    began: Option<Instant>,
}

impl std::fmt::Debug for Exits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Exits")
            .field("cells", &self.cells)
            .finish_non_exhaustive()
    }
}

impl Exits {
    /// Creates a cell for each of `processors` processors.
    ///
    /// `notify` is called on any thread when the receiver sleeps and an exit is posted; it must not panic.
    pub fn new(processors: usize, notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            cells: (0..processors).map(|_| ExitCell::default()).collect(),
            posts: (0..processors).map(|_| Post::default()).collect(),
            origin: Instant::now(),
            awake: AtomicBool::new(false),
            receiver_waits: AtomicBool::new(false),
            is_apart: AtomicBool::new(false),
            receiver_cpu: AtomicUsize::default(),
            receiver_thread: OnceLock::new(),
            receiver: Mutex::default(),
            notify: Box::new(notify),
        }
    }

    /// The cells, for a view of them.
    #[must_use]
    pub fn cells(&self) -> &[ExitCell] {
        &self.cells
    }

    /// Posts the exit of a processor, and waits for the answer: for a read, the value. Returns `None` if it is
    /// cancelled. One thread posts for each processor.
    pub fn post(&self, index: usize, exit: Exit) -> Option<u64> {
        let (cell, post) = (self.cells.get(index)?, self.posts.get(index)?);
        cell.kind.store(exit.kind, Ordering::Relaxed);
        cell.length.store(exit.length, Ordering::Relaxed);
        cell.address.store(exit.address, Ordering::Relaxed);
        cell.data.store(exit.data, Ordering::Relaxed);
        post.thread.get_or_init(std::thread::current);
        let now = self.now();
        post.posted.store(now, Ordering::Relaxed);
        let is_apart = host_cpu() != self.receiver_cpu.load(Ordering::Relaxed);
        let pays = is_short(post.answered.load(Ordering::Relaxed), now);
        self.receiver_waits.store(pays, Ordering::Relaxed);
        self.is_apart.store(is_apart, Ordering::Relaxed);
        post.change(EMPTY, POSTED).then_some(())?; // otherwise it is cancelled
        if !self.awake.swap(true, Ordering::SeqCst) {
            (self.notify)();
        } else if let Some(receiver) = self.receiver_thread.get() {
            receiver.unpark();
        }
        if is_apart && post.spins.load(Ordering::Relaxed) {
            let began = Instant::now();
            while !post.is_settled() && began.elapsed() < WAIT {
                std::hint::spin_loop();
            }
        }
        while !post.is_settled() {
            std::thread::park();
        }
        post.change(ANSWERED, EMPTY)
            .then(|| cell.data.load(Ordering::Relaxed))
    }

    /// Takes a posted exit, in the receiver's turn after a notification.
    ///
    /// Without one, waits for up to [`WAIT`] while exits follow one another closely.
    pub fn next(&self) -> Next {
        let mut receiver = lock(&self.receiver);
        let now = Instant::now();
        if now.duration_since(*receiver.began.get_or_insert(now)) > TURN {
            receiver.began = None;
            return Next::TurnOver;
        }
        self.receiver_thread.get_or_init(std::thread::current);
        loop {
            if let Some(index) = self.take(&mut receiver) {
                return Next::Exit(index);
            }
            let left = WAIT.saturating_sub(now.elapsed());
            if self.waits() && !left.is_zero() {
                if self.is_apart.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                } else {
                    std::thread::park_timeout(left);
                }
                continue;
            }
            self.awake.store(false, Ordering::SeqCst);
            // A processor that has posted before that store has not notified the receiver.
            if !self.has(POSTED) || self.awake.swap(true, Ordering::SeqCst) {
                receiver.began = None;
                return Next::Idle;
            }
        }
    }

    /// Answers the exit that the receiver has taken. The answer to a read is in the cell.
    pub fn answer(&self, index: usize) {
        let Some(post) = self.posts.get(index) else {
            return;
        };
        let now = self.now();
        let pays = is_short(post.posted.load(Ordering::Relaxed), now);
        post.spins.store(pays, Ordering::Relaxed);
        post.answered.store(now, Ordering::Relaxed);
        self.receiver_cpu.store(host_cpu(), Ordering::Relaxed);
        if post.change(TAKEN, ANSWERED) {
            post.wake();
        }
    }

    /// Ends the present wait of a processor and all later ones.
    pub fn cancel(&self, index: usize) {
        if let Some(post) = self.posts.get(index) {
            post.state.store(CANCELLED, Ordering::SeqCst);
            post.wake();
        }
    }

    /// Takes a posted exit, those of all processors in turn.
    fn take(&self, receiver: &mut Receiver) -> Option<usize> {
        let count = self.posts.len();
        let order = (receiver.next..count).chain(0..receiver.next.min(count));
        for index in order {
            if self.posts.get(index)?.change(POSTED, TAKEN) {
                receiver.next = index.saturating_add(1);
                return Some(index);
            }
        }
        None
    }

    /// Whether the receiver waits for the next exit. An exit that it has taken and not answered has a promise, which
    /// needs a turn of the event loop.
    fn waits(&self) -> bool {
        self.receiver_waits.load(Ordering::Relaxed) && !self.has(TAKEN)
    }

    fn has(&self, state: u32) -> bool {
        let of = |post: &Post| post.state.load(Ordering::SeqCst);
        self.posts.iter().any(|post| of(post) == state)
    }

    /// The time in nanoseconds; at least 1.
    fn now(&self) -> u64 {
        let elapsed = self.origin.elapsed().as_nanos();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

impl Post {
    fn change(&self, from: u32, to: u32) -> bool {
        let (success, failure) = (Ordering::SeqCst, Ordering::Relaxed);
        let changed = self.state.compare_exchange(from, to, success, failure);
        changed.is_ok()
    }

    /// Whether the exit is answered or cancelled.
    fn is_settled(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), ANSWERED | CANCELLED)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The processor of the host that executes this thread.
#[cfg(not(miri))]
fn host_cpu() -> usize {
    nix::sched::sched_getcpu().unwrap_or(0)
}

/// Miri does not have that call. Each thread is on a processor of its own, so both sides spin.
#[cfg(miri)]
fn host_cpu() -> usize {
    thread_local! { static OF_THREAD: u8 = const { 0 } }
    OF_THREAD.with(|of_thread| std::ptr::from_ref(of_thread).addr())
}

/// Whether so little time has passed that spinning pays.
fn is_short(since: u64, now: u64) -> bool {
    since != 0 && Duration::from_nanos(now.saturating_sub(since)) < WAIT
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver as Notifications, channel};
    use std::thread;

    use super::*;

    fn read_of(address: u64) -> Exit {
        Exit {
            kind: 1,
            length: 4,
            address,
            data: 0,
        }
    }

    fn exits(processors: usize) -> (Arc<Exits>, Notifications<()>) {
        let (sender, receiver) = channel();
        let notify = move || sender.send(()).unwrap();
        (Arc::new(Exits::new(processors, notify)), receiver)
    }

    /// Takes a posted exit, in as many turns as it takes.
    fn next(exits: &Exits) -> Option<usize> {
        loop {
            match exits.next() {
                Next::Exit(index) => return Some(index),
                Next::Idle => return None,
                Next::TurnOver => {}
            }
        }
    }

    /// Answers every exit with its address, increased by one.
    fn answer_all(exits: &Exits) -> usize {
        let mut count = 0;
        while let Some(index) = next(exits) {
            let cell = exits.cells().get(index).unwrap();
            let address = cell.address.load(Ordering::Relaxed);
            cell.data.store(address + 1, Ordering::Relaxed);
            exits.answer(index);
            count += 1;
        }
        count
    }

    #[test]
    fn answers_each_exit_of_several_processors_once() {
        const EACH: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let (exits, notifications) = exits(3);
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let exits = Arc::clone(&exits);
                thread::spawn(move || {
                    for address in 0..EACH {
                        let answer = exits.post(index, read_of(address));
                        assert_eq!(answer, Some(address + 1));
                    }
                })
            })
            .collect();
        let mut count = 0;
        while count < 3 * usize::try_from(EACH).unwrap() {
            notifications.recv_timeout(Duration::from_secs(60)).unwrap();
            count += answer_all(&exits);
        }
        threads.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(next(&exits), None);
    }

    #[test]
    fn a_cancelled_processor_does_not_wait_any_more() {
        let (exits, notifications) = exits(1);
        let waiting = Arc::clone(&exits);
        let thread =
            thread::spawn(move || [waiting.post(0, read_of(1)), waiting.post(0, read_of(2))]);
        notifications.recv().unwrap();
        assert_eq!(next(&exits), Some(0));
        exits.cancel(0);
        exits.answer(0);
        assert_eq!(thread.join().unwrap(), [None, None]);
        assert_eq!(next(&exits), None);
    }

    #[test]
    fn the_turn_of_the_receiver_ends_while_exits_go_on() {
        let (exits, notifications) = exits(1);
        let posting = Arc::clone(&exits);
        let thread = thread::spawn(move || while posting.post(0, read_of(0)).is_some() {});
        notifications.recv().unwrap();
        loop {
            match exits.next() {
                Next::Exit(index) => exits.answer(index),
                Next::Idle => notifications.recv().unwrap(),
                Next::TurnOver => break,
            }
        }
        exits.cancel(0);
        thread.join().unwrap();
    }

    #[test]
    fn an_index_without_a_processor_has_no_exit() {
        let (exits, _notifications) = exits(1);
        assert_eq!(exits.post(1, read_of(0)), None);
        exits.answer(1);
        exits.cancel(1);
    }
}
