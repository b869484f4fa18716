//! Eventfds, and the watcher that tells JavaScript about them.

use napi::bindgen_prelude::{BigUint64ArraySlice, Function};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi::{Env, Status};
use napi_derive::napi;
use peerdma_core::event::{EventFd, Watcher};

use crate::error::{closed, to_js};
use crate::numbers::{Index, U64};

/// A counter of events.
#[napi]
pub struct NativeEventFd {
    event: Option<EventFd>,
}

impl NativeEventFd {
    pub(crate) fn event(&self) -> napi::Result<&EventFd> {
        self.event.as_ref().ok_or_else(|| closed("event"))
    }
}

#[napi]
impl NativeEventFd {
    /// Makes one that counts nothing yet.
    #[napi(factory)]
    pub fn create() -> napi::Result<Self> {
        EventFd::new()
            .map(|event| Self { event: Some(event) })
            .map_err(to_js)
    }

    /// The number of its descriptor.
    #[napi(getter)]
    pub fn fd(&self) -> napi::Result<i32> {
        Ok(self.event()?.raw_fd())
    }

    /// Adds to the count.
    #[napi]
    pub fn signal(&self, #[napi(ts_arg_type = "bigint")] count: U64) -> napi::Result<()> {
        self.event()?.signal(count.0).map_err(to_js)
    }

    /// Takes the count.
    #[napi(ts_return_type = "bigint")]
    pub fn take(&self) -> napi::Result<U64> {
        self.event()?.take().map(U64).map_err(to_js)
    }

    /// Gives the handle up. Who was given the eventfd keeps it.
    #[napi]
    pub fn close(&mut self) {
        self.event = None;
    }
}

/// Waits for eventfds on a thread of its own.
//
// The thread ends when this object goes, with its environment at the latest. It then has called the
// function for the last time: nothing of it outlives a worker.
#[napi]
pub struct NativeEventWatcher {
    watcher: Watcher,
}

#[napi]
impl NativeEventWatcher {
    /// `notify` is called when there is something to collect. It keeps neither a process nor a worker alive.
    #[napi(constructor)]
    pub fn new(
        #[napi(ts_arg_type = "() => void")] notify: Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        let notify = notify
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .build()?;
        let watcher = Watcher::new(move || {
            // Refused only when the environment is going: there is nobody to tell then.
            let _: Status = notify.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        Ok(Self {
            watcher: watcher.map_err(to_js)?,
        })
    }

    /// Waits for an eventfd, under an id that is free.
    #[napi]
    pub fn add(
        &self,
        #[napi(ts_arg_type = "number")] id: Index,
        event: &NativeEventFd,
    ) -> napi::Result<()> {
        self.watcher.add(id.0, event.event()?).map_err(to_js)
    }

    /// Waits for it no more. A count that was not collected stays in the eventfd.
    #[napi]
    pub fn remove(&self, #[napi(ts_arg_type = "number")] id: Index) -> napi::Result<()> {
        self.watcher.remove(id.0).map_err(to_js)
    }

    /// Takes what was signalled: pairs of id and count.
    #[napi]
    pub fn collect<'env>(&self, env: &'env Env) -> napi::Result<BigUint64ArraySlice<'env>> {
        let counts = self.watcher.collect().map_err(to_js)?;
        let words: Vec<u64> = counts
            .into_iter()
            .flat_map(|(id, count)| [id, count])
            .collect();
        BigUint64ArraySlice::copy_from(env, words)
    }
}
