//! Decides when each processor may execute the guest.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::sys::pthread::{Pthread, pthread_self};

use super::kick::Kick;
use crate::locked::lock;

/// The next action of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Execute the guest.
    Run,
    /// Complete the last exit, and return without executing the guest.
    Complete,
    /// End the thread.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Pause,
    /// As `Pause`, after a failure: nothing waits for processors whose exits may get no answer.
    Fail,
    Run,
    End,
}

/// A gate in front of the guest, for the threads of all processors.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug)]
struct GateState {
    /// The number of callers that keep all processors out of the guest.
    holds: usize,
    /// The number of threads that wait for a change.
    waiting: usize,
    request: Request,
    processors: Vec<Processor>,
}

#[derive(Debug)]
struct Processor {
    /// Its thread, once it runs.
    thread: Option<Pthread>,
    in_guest: bool,
    /// It was signalled since it entered the guest.
    kicked: bool,
    /// It waits at the gate with no exit to complete, or has ended.
    parked: bool,
}

impl Processor {
    const fn new() -> Self {
        Self {
            thread: None,
            in_guest: false,
            kicked: false,
            parked: true,
        }
    }
}

impl Gate {
    /// Creates a gate for paused processors.
    pub(super) fn new(processors: usize) -> Self {
        let state = GateState {
            holds: 0,
            waiting: 0,
            request: Request::Pause,
            processors: (0..processors).map(|_| Processor::new()).collect(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until this processor may execute the guest. If its last exit has been answered and not `completed`, a
    /// paused processor completes it first.
    pub(super) fn enter(&self, index: usize, completed: bool) -> Turn {
        let mut state = lock(&self.state);
        loop {
            let turn = match state.request {
                Request::End => Turn::End,
                Request::Run => Turn::Run,
                Request::Pause | Request::Fail => Turn::Complete,
            };
            let waits = match turn {
                Turn::End => false,
                Turn::Run => state.holds > 0,
                Turn::Complete => completed || state.holds > 0,
            };
            let Some(processor) = state.processors.get_mut(index) else {
                return Turn::End;
            };
            if !waits {
                processor.thread = Some(pthread_self());
                processor.in_guest = turn != Turn::End;
                processor.parked = turn == Turn::End;
                self.notify(&state);
                return turn;
            }
            // Not after each wake-up: two processors at the gate would wake each other permanently.
            if processor.parked != completed {
                processor.parked = completed;
                self.notify(&state);
            }
            state = self.wait(state);
        }
    }

    /// Records that the processor is out of the guest. Returns whether it was signalled meanwhile.
    pub(super) fn leave(&self, index: usize) -> bool {
        let mut state = lock(&self.state);
        let Some(processor) = state.processors.get_mut(index) else {
            return false;
        };
        processor.in_guest = false;
        let kicked = std::mem::take(&mut processor.kicked);
        if kicked {
            self.notify(&state);
        }
        kicked
    }

    /// Records that the thread of the processor has ended.
    pub(super) fn ended(&self, index: usize) {
        let mut state = lock(&self.state);
        if let Some(processor) = state.processors.get_mut(index) {
            processor.in_guest = false;
            processor.parked = true;
            processor.thread = None;
        }
        self.notify(&state);
    }

    /// Lets all processors execute the guest.
    pub(super) fn run(&self) {
        drop(self.request(Request::Run));
    }

    /// Makes all processors leave the guest. Does not wait for them.
    pub(super) fn request_pause(&self) {
        drop(self.request(Request::Pause));
    }

    /// As [`request_pause`](Self::request_pause) after a failure: ends all waits for a pause.
    pub(super) fn fail(&self) {
        drop(self.request(Request::Fail));
    }

    /// Waits until no processor executes the guest, and each has completed its last exit.
    ///
    /// Somebody else has to answer that exit. Returns early if something else is requested.
    pub(super) fn wait_paused(&self) {
        let mut state = lock(&self.state);
        while state.request == Request::Pause && !state.processors.iter().all(|one| one.parked) {
            state = self.wait(state);
        }
    }

    /// Whether no processor executes the guest, and each has completed its last exit.
    pub(super) fn is_paused(&self) -> bool {
        let state = lock(&self.state);
        state.request != Request::Run && state.processors.iter().all(|one| one.parked)
    }

    /// Whether the end of all threads was requested.
    pub(super) fn is_ended(&self) -> bool {
        lock(&self.state).request == Request::End
    }

    /// Makes all threads end. Does not wait for them.
    pub(super) fn end(&self) {
        drop(self.request(Request::End));
    }

    /// Lets no processor enter the guest until [`release`](Self::release), and makes them leave it. Does not wait for
    /// them. Returns whether all are out. A processor that waits for an answer is.
    pub(super) fn hold(&self) -> bool {
        let mut state = lock(&self.state);
        state.holds = state.holds.saturating_add(1);
        state.kick();
        state.all_out()
    }

    /// Waits until all processors are out of the guest, after [`hold`](Self::hold). Returns early after its release.
    pub(super) fn wait_held(&self) {
        let mut state = lock(&self.state);
        while state.holds > 0 && !state.all_out() {
            state = self.wait(state);
        }
    }

    /// Ends one [`hold`](Self::hold).
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        state.holds = state.holds.saturating_sub(1);
        self.notify(&state);
    }

    /// Nothing replaces a request to end.
    fn request(&self, request: Request) -> MutexGuard<'_, GateState> {
        let mut state = lock(&self.state);
        if state.request != Request::End {
            state.request = request;
        }
        if request != Request::Run {
            state.kick();
        }
        self.notify(&state);
        state
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, GateState>) -> MutexGuard<'a, GateState> {
        state.waiting = state.waiting.saturating_add(1);
        let changed = self.changed.wait(state);
        let mut state = changed.unwrap_or_else(PoisonError::into_inner);
        state.waiting = state.waiting.saturating_sub(1);
        state
    }

    /// A notification is a system call, and each exit of the guest passes here.
    fn notify(&self, state: &GateState) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

impl GateState {
    fn all_out(&self) -> bool {
        !self.processors.iter().any(|one| one.in_guest)
    }

    /// Makes each processor leave the guest, or not enter it.
    fn kick(&mut self) {
        for processor in &mut self.processors {
            if processor.in_guest
                && !processor.kicked
                && let Some(thread) = processor.thread
            {
                processor.kicked = true;
                Kick::send(thread);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A processor that is in the guest until it is signalled. Sends each of its turns.
    fn processor(gate: &Arc<Gate>) -> (thread::JoinHandle<()>, std::sync::mpsc::Receiver<Turn>) {
        let (sender, receiver) = channel();
        let gate = Arc::clone(gate);
        let body = move || {
            let kick = Kick::for_this_thread().unwrap();
            let mut completed = true;
            loop {
                let turn = gate.enter(0, completed);
                sender.send(turn).unwrap();
                match turn {
                    Turn::End => return gate.ended(0),
                    Turn::Run => {
                        kick.take();
                        assert!(gate.leave(0));
                        completed = false;
                    }
                    Turn::Complete => {
                        assert!(!gate.leave(0));
                        completed = true;
                    }
                }
            }
        };
        (thread::spawn(body), receiver)
    }

    #[test]
    fn a_pause_waits_until_the_last_exit_is_completed() {
        let gate = Arc::new(Gate::new(1));
        let (thread, turns) = processor(&gate);
        gate.run();
        assert_eq!(turns.recv().unwrap(), Turn::Run);
        gate.request_pause();
        gate.wait_paused();
        assert!(gate.is_paused());
        assert_eq!(turns.try_recv().unwrap(), Turn::Complete);
        assert!(
            turns.try_recv().is_err(),
            "a paused processor does not enter the guest"
        );
        gate.run();
        assert_eq!(turns.recv().unwrap(), Turn::Run);
        gate.end();
        assert_eq!(turns.recv().unwrap(), Turn::End);
        thread.join().unwrap();
    }

    #[test]
    fn a_failure_and_the_end_end_the_wait_for_a_pause() {
        for end_wait in [Gate::fail, Gate::end] {
            let gate = Arc::new(Gate::new(1));
            gate.run();
            assert_eq!(gate.enter(0, true), Turn::Run);
            assert!(!gate.leave(0));
            gate.request_pause();
            let (sender, ended) = channel();
            let waiting = Arc::clone(&gate);
            let wait = thread::spawn(move || {
                waiting.wait_paused();
                sender.send(()).unwrap();
            });
            let early = ended.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "the processor has an exit to complete");
            end_wait(&gate);
            ended.recv_timeout(Duration::from_secs(60)).unwrap();
            wait.join().unwrap();
            gate.wait_paused();
            assert!(!gate.is_paused());
        }
    }

    #[test]
    fn a_hold_keeps_processors_out_until_its_release() {
        let gate = Arc::new(Gate::new(1));
        let (thread, turns) = processor(&gate);
        gate.run();
        assert_eq!(turns.recv().unwrap(), Turn::Run);
        assert!(!gate.hold(), "it is in the guest until it takes the signal");
        gate.wait_held();
        assert!(gate.hold(), "it is out");
        gate.release();
        assert!(!lock(&gate.state).processors.first().unwrap().in_guest);
        assert!(turns.try_recv().is_err(), "one hold is left");
        gate.release();
        assert_eq!(turns.recv().unwrap(), Turn::Run);
        gate.end();
        assert_eq!(turns.recv().unwrap(), Turn::End);
        thread.join().unwrap();
    }

    #[test]
    fn nothing_runs_after_the_end() {
        let gate = Gate::new(1);
        gate.end();
        gate.run();
        assert_eq!(gate.enter(0, true), Turn::End);
    }
}
