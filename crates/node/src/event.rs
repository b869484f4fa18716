//! Eventfds, and the watcher that notifies JavaScript of them.

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
    /// Creates an eventfd with count 0.
    #[napi(factory)]
    pub fn create() -> napi::Result<Self> {
        EventFd::new()
            .map(|event| Self { event: Some(event) })
            .map_err(to_js)
    }

    /// The number of the descriptor.
    #[napi(getter)]
    pub fn fd(&self) -> napi::Result<i32> {
        Ok(self.event()?.raw_fd())
    }

    /// Adds to the count.
    #[napi]
    pub fn signal(&self, #[napi(ts_arg_type = "bigint")] count: U64) -> napi::Result<()> {
        self.event()?.signal(count.0).map_err(to_js)
    }

    /// Returns the count, and sets it to 0.
    #[napi(ts_return_type = "bigint")]
    pub fn take(&self) -> napi::Result<U64> {
        self.event()?.take().map(U64).map_err(to_js)
    }

    /// Closes the handle. Other owners of the eventfd keep it.
    #[napi]
    pub fn close(&mut self) {
        self.event = None;
    }
}

/// Waits for eventfds on a separate thread.
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
        #[napi(ts_arg_type = "() => void")] notify: Function<'_, (), ()>,
    ) -> napi::Result<Self> {
        let notify = notify
            .build_threadsafe_function::<()>()
            .weak::<true>()
            .callee_handled::<false>()
            .build()?;
        let watcher = Watcher::new(move || {
            // The call fails only when the environment ends: there is no receiver then.
            let _: Status = notify.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        Ok(Self {
            watcher: watcher.map_err(to_js)?,
        })
    }

    /// Adds an eventfd under an unused id.
    #[napi]
    pub fn add(
        &self,
        #[napi(ts_arg_type = "number")] id: Index,
        event: &NativeEventFd,
    ) -> napi::Result<()> {
        self.watcher.add(id.0, event.event()?).map_err(to_js)
    }

    /// Removes an eventfd. A count that was not collected stays in the eventfd.
    #[napi]
    pub fn remove(&self, #[napi(ts_arg_type = "number")] id: Index) -> napi::Result<()> {
        self.watcher.remove(id.0).map_err(to_js)
    }

    /// Takes the counts of signalled eventfds: pairs of id and count.
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
