//! Eventfds, and the watcher that notifies JavaScript of them and of sockets.

use napi::bindgen_prelude::Function;
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Status};
use napi_derive::napi;
use peerdma_core::Result;
use peerdma_core::event::{EventFd, Readiness, Watcher};

use crate::error::{closed, or_throw};
use crate::numbers::{Fd, Index, U64, Words};
use crate::socket::NativeUnixSocket;

/// A counter of events.
#[napi]
pub struct NativeEventFd {
    event: Option<EventFd>,
}

impl NativeEventFd {
    pub(crate) fn event(&self) -> Result<&EventFd> {
        self.event.as_ref().ok_or_else(|| closed("event"))
    }
}

#[napi]
impl NativeEventFd {
    /// Creates an eventfd with count 0.
    #[napi(factory)]
    pub fn create(env: &Env) -> napi::Result<Self> {
        or_throw(env, || {
            EventFd::new().map(|event| Self { event: Some(event) })
        })
    }

    /// Duplicates the descriptor of an eventfd; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || {
            EventFd::from_fd(fd.0).map(|event| Self { event: Some(event) })
        })
    }

    /// The number of the descriptor.
    #[napi(getter)]
    pub fn fd(&self, env: &Env) -> napi::Result<i32> {
        or_throw(env, || Ok(self.event()?.raw_fd()))
    }

    /// Adds to the count.
    #[napi]
    pub fn signal(&self, env: &Env, count: U64) -> napi::Result<()> {
        or_throw(env, || self.event()?.signal(count.0))
    }

    /// Returns the count, and sets it to 0.
    #[napi]
    pub fn take(&self, env: &Env) -> napi::Result<U64> {
        or_throw(env, || self.event()?.take().map(U64))
    }

    /// Closes the handle. Other owners of the eventfd keep it.
    #[napi]
    pub fn close(&mut self) {
        self.event = None;
    }
}

/// Waits for eventfds and sockets on a separate thread.
//
// The thread ends when this object is dropped, at the latest with its environment. It does not call the function
// after that: nothing of it outlives a worker.
#[napi]
pub struct NativeEventWatcher {
    watcher: Watcher,
}

#[napi]
impl NativeEventWatcher {
    /// `notify` is called when there are counts to collect. It does not keep a process or worker alive.
    #[napi(constructor)]
    pub fn new(
        env: &Env,
        #[napi(ts_arg_type = "() => void")] notify: Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        let notify = notify
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .build()?;
        let notify = move || {
            // The call fails only when the environment ends: there is no receiver then.
            let _: Status = notify.call((), ThreadsafeFunctionCallMode::NonBlocking);
        };
        let watcher = or_throw(env, || Watcher::new(notify))?;
        Ok(Self { watcher })
    }

    /// Adds an eventfd under an unused id.
    #[napi]
    pub fn add(&self, env: &Env, id: Index, event: &NativeEventFd) -> napi::Result<()> {
        or_throw(env, || self.watcher.add(id.0, event.event()?))
    }

    /// Waits until a socket is ready, once, under its own unused id. Replaces the readiness waited for before.
    #[napi]
    pub fn await_socket(
        &self,
        env: &Env,
        id: Index,
        socket: &NativeUnixSocket,
        receive: bool,
        send: bool,
    ) -> napi::Result<()> {
        let readiness = Readiness { receive, send };
        or_throw(env, || {
            self.watcher.await_socket(id.0, socket.socket()?, readiness)
        })
    }

    /// Removes an eventfd or socket. A count that was not collected stays in the eventfd.
    #[napi]
    pub fn remove(&self, env: &Env, id: Index) -> napi::Result<()> {
        or_throw(env, || self.watcher.remove(id.0))
    }

    /// Takes the counts of signalled eventfds: pairs of id and count. The count of a ready socket is 1.
    #[napi]
    pub fn collect(&self, env: &Env) -> napi::Result<Words> {
        let counts = or_throw(env, || self.watcher.collect())?.into_iter();
        Ok(Words(counts.flat_map(|(id, count)| [id, count]).collect()))
    }
}
