//! A thread that waits for eventfds and sockets, and notifies a possibly busy receiver once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::EventFd;
use crate::locked::lock;
use crate::socket::UnixSocket;
use crate::{Error, ErrorCode, Result};

/// The name of the thread; at most 15 bytes.
const THREAD: &str = "peerdma-events";
/// The id of the eventfd that ends the thread.
const STOP: u64 = u64::MAX;
/// The largest number of events per wait; the next wait returns the others.
const BATCH: usize = 64;

/// Waits for eventfds, and for sockets.
///
/// The thread never takes a count: it notifies the receiver, which collects the counts later. Until then the thread
/// sleeps, however often an eventfd is signalled, and the kernel counts. So a count is always in its eventfd or with
/// the receiver, and none is lost.
///
/// A socket is watched until it is ready once.
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
    state: Mutex<WatcherState>,
}

/// The calls of a socket that a receiver waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Something can be received, or the stream has ended.
    pub receive: bool,
    /// Something can be sent.
    pub send: bool,
}

#[derive(Debug)]
enum Source {
    Event(EventFd),
    Socket(UnixSocket),
}

#[derive(Debug, Default)]
struct WatcherState {
    watched: BTreeMap<u64, Source>,
    /// The ids that have reported since the last `collect`.
    ready: Vec<u64>,
    /// Whether the receiver was notified since the last `collect`.
    notified: bool,
}

impl Watcher {
    /// Starts the thread, which calls `notify` when there are counts to collect. It calls it once until the next
    /// [`collect`](Self::collect). `notify` should be fast and must not panic; it is dropped with the thread.
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

    /// Adds an eventfd under an id that the caller chooses; an existing count is reported too. The watcher keeps the
    /// eventfd open.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if the id is in use, or 2^64 - 1; `ERR_SYSTEM`, also if the eventfd is watched already
    /// (`EEXIST`).
    pub fn add(&self, id: u64, event: &EventFd) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let entry = match state.watched.entry(id) {
            Entry::Vacant(entry) if id != STOP => entry,
            _ => return Err(id_in_use(id)),
        };
        self.shared
            .epoll
            .add(event, armed(id))
            .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_ADD)"))?;
        entry.insert(Source::Event(event.clone()));
        Ok(())
    }

    /// Waits until a socket is ready, under an id that the caller chooses for the socket. Replaces the readiness that
    /// was waited for before. The watcher keeps the socket open until it is removed.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if the id is that of an eventfd, or 2^64 - 1; `ERR_SYSTEM`.
    pub fn await_socket(&self, id: u64, socket: &UnixSocket, readiness: Readiness) -> Result<()> {
        let mut flags = EpollFlags::EPOLLONESHOT;
        flags.set(EpollFlags::EPOLLIN, readiness.receive);
        flags.set(EpollFlags::EPOLLOUT, readiness.send);
        let mut event = EpollEvent::new(flags, id);
        let mut state = lock(&self.shared.state);
        match state.watched.entry(id) {
            Entry::Vacant(entry) if id != STOP => {
                self.shared
                    .epoll
                    .add(socket, event)
                    .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_ADD)"))?;
                entry.insert(Source::Socket(socket.clone()));
                Ok(())
            }
            Entry::Occupied(entry) if matches!(entry.get(), Source::Socket(_)) => self
                .shared
                .epoll
                .modify(socket, &mut event)
                .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_MOD)")),
            _ => Err(id_in_use(id)),
        }
    }

    /// Removes an eventfd or socket: `collect` does not return its id from now on. A count that was not collected stays
    /// in the eventfd. Does nothing if the id is not in use.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an unexpected errno.
    pub fn remove(&self, id: u64) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let Some(source) = state.watched.remove(&id) else {
            return Ok(());
        };
        let fd = match &source {
            Source::Event(event) => event.as_fd(),
            Source::Socket(socket) => socket.as_fd(),
        };
        self.shared
            .epoll
            .delete(fd)
            .map_err(|errno| failed(errno, "epoll_ctl(EPOLL_CTL_DEL)"))
    }

    /// Takes the counts of signalled eventfds, as pairs of id and count. The count of a ready socket is 1. Does not
    /// read the others.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an unexpected errno.
    pub fn collect(&self) -> Result<Vec<(u64, u64)>> {
        let mut state = lock(&self.shared.state);
        state.notified = false;
        let ready = std::mem::take(&mut state.ready);
        let mut counts = Vec::with_capacity(ready.len());
        let mut problem = None;
        for id in ready {
            // It was removed after it had reported.
            let event = match state.watched.get(&id) {
                None => continue,
                Some(Source::Socket(_)) => {
                    counts.push((id, 1));
                    continue;
                }
                Some(Source::Event(event)) => event,
            };
            // Armed after the count is taken, so that a signal between the two is reported.
            match event.take() {
                Ok(0) => {} // another reader took it
                Ok(count) => counts.push((id, count)),
                Err(error) => problem = Some(error),
            }
            if let Err(errno) = self.shared.epoll.modify(event, &mut armed(id)) {
                problem = Some(failed(errno, "epoll_ctl(EPOLL_CTL_MOD)"));
            }
        }
        match problem {
            // Counts that were taken must reach the receiver.
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
                // A valid descriptor does not fail, and nobody here could report an error.
                Err(_) => return,
            };
            let ids = events.iter().take(count).map(EpollEvent::data);
            if ids.clone().any(|id| id == STOP) {
                return;
            }
            let should_notify = {
                let mut state = lock(&self.state);
                state.ready.extend(ids);
                !std::mem::replace(&mut state.notified, true)
            };
            if should_notify {
                notify();
            }
        }
    }
}

impl Drop for Watcher {
    /// Ends the thread and waits for it, after which `notify` is dropped.
    fn drop(&mut self) {
        if self.stop.signal(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread is `notify`'s, and was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn id_in_use(id: u64) -> Error {
    let message = format!("the id {id} is in use or reserved");
    Error::new(ErrorCode::InvalidArgument, message)
}

const fn armed(id: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLONESHOT), id)
}

fn failed(errno: Errno, syscall: &'static str) -> Error {
    Error::os(ErrorCode::System, errno, syscall, "waiting for events")
}
