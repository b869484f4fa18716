//! One thread that waits for any number of eventfds and tells a receiver, which may be busy, once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::EventFd;
use crate::locked::lock;
use crate::{Error, ErrorCode, Result};

/// What the kernel calls the thread; 15 bytes at most.
const THREAD: &str = "peerdma-events";
/// In place of an eventfd's id: the one that ends the thread.
const STOP: u64 = u64::MAX;
/// How many events one wait brings at most. The others come with the next.
const BATCH: usize = 64;

/// Waits for eventfds.
///
/// The thread never takes a count: it says that there is something, and the receiver takes what there
/// is when it comes for it. Until then the thread sleeps, however often an eventfd is signalled, and the kernel
/// counts. So no count is ever anywhere but in its eventfd or with the receiver, and none gets lost.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Each eventfd reports once (`EPOLLONESHOT`), and again after its count was taken.
    epoll: Epoll,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watched: BTreeMap<u64, EventFd>,
    /// Who has reported and was not asked since.
    ready: Vec<u64>,
    /// The receiver was told, and has not come yet.
    told: bool,
}

impl Watcher {
    /// Starts the thread, which calls `notify` when there is something to [`collect`](Self::collect)
    /// and the receiver was not told of that already. `notify` should be quick and must not panic; it goes with
    /// the thread.
    ///
    /// # Errors
    /// `ERR_SYSTEM`: too many open files, or threads.
    pub fn new(notify: impl Fn() + Send + 'static) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| failed(errno, "epoll_create1"))?;
        let stop = EventFd::new()?;
        epoll
            .add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))
            .map_err(|errno| failed(errno, "epoll_ctl"))?;
        let shared = Arc::new(Shared {
            epoll,
            state: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || of_thread.run(&notify))
            .map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                failed(errno, "clone3")
            })?;
        Ok(Self {
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for an eventfd from now on, under an id of the caller's; a count that is there already is
    /// reported as well. The watcher keeps the eventfd open.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for an id that is in use, or 2^64 - 1; `ERR_SYSTEM`, also for an eventfd that is
    /// watched already (`EEXIST`).
    pub fn add(&self, id: u64, event: &EventFd) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let entry = match state.watched.entry(id) {
            Entry::Vacant(entry) if id != STOP => entry,
            _ => {
                let message = format!("the id {id} is not free for another event");
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
        };
        self.shared
            .epoll
            .add(event, armed(id))
            .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_ADD)"))?;
        entry.insert(event.clone());
        Ok(())
    }

    /// Waits for it no more: `collect` has nothing under that id from now on. Its count, if it was not
    /// collected, stays in the eventfd. Does nothing for an id that is not in use.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, if the kernel has something to say that is not known here.
    pub fn remove(&self, id: u64) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let Some(event) = state.watched.remove(&id) else {
            return Ok(());
        };
        self.shared
            .epoll
            .delete(&event)
            .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_DEL)"))
    }

    /// Takes the counts of what was signalled: pairs of id and count. Nothing is taken from an eventfd that
    /// was not.
    ///
    /// # Errors
    /// `ERR_SYSTEM`, if the kernel has something to say that is not known here.
    pub fn collect(&self) -> Result<Vec<(u64, u64)>> {
        let mut state = lock(&self.shared.state);
        state.told = false;
        let ready = std::mem::take(&mut state.ready);
        let mut counts = Vec::with_capacity(ready.len());
        let mut problem = None;
        for id in ready {
            // Not there: it was removed after it had reported.
            let Some(event) = state.watched.get(&id) else {
                continue;
            };
            // Armed after the count is taken: what comes between the two is reported.
            match event.take() {
                Ok(0) => {} // somebody else took it
                Ok(count) => counts.push((id, count)),
                Err(error) => problem = Some(error),
            }
            if let Err(errno) = self.shared.epoll.modify(event, &mut armed(id)) {
                problem = Some(failed(errno, "epoll_ctl(EPOLL_CTL_MOD)"));
            }
        }
        match problem {
            // What was taken has to get to the receiver.
            Some(error) if counts.is_empty() => Err(error),
            _ => Ok(counts),
        }
    }
}

impl Shared {
    fn run(&self, notify: &impl Fn()) {
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                // Not known of a valid descriptor, and there is nobody here to tell.
                Err(_) => return,
            };
            let ids = events.iter().take(count).map(EpollEvent::data);
            if ids.clone().any(|id| id == STOP) {
                return;
            }
            let tell = {
                let mut state = lock(&self.state);
                state.ready.extend(ids);
                !std::mem::replace(&mut state.told, true)
            };
            if tell {
                notify();
            }
        }
    }
}

impl Drop for Watcher {
    /// Ends the thread, and waits for that: `notify` is gone then.
    fn drop(&mut self) {
        if self.stop.signal(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic in there is `notify`'s, and was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

const fn armed(id: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT), id)
}

fn failed(errno: Errno, syscall: &'static str) -> Error {
    Error::os(ErrorCode::System, errno, syscall, "waiting for events")
}
