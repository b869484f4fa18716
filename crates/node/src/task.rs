//! Work for a thread of libuv's pool, which owns its data.

use napi::bindgen_prelude::{AsyncTask, ToNapiValue, TypeName};
use napi::{Env, Task};
use peerdma_core::Result;

use crate::error::{closed, throwable};

/// A call that may be slow, and runs on a worker thread. Examples are pinning, faulting in or releasing memory, resets,
/// opening and closing devices. `T` is its result, `J` the JavaScript value made from it.
pub struct Work<T = (), J = ()> {
    work: Option<Box<dyn FnOnce() -> Result<T> + Send>>,
    wrap: fn(T) -> J,
}

impl Work {
    /// Runs `work` on another thread; the promise settles with its result.
    pub(crate) fn run(work: impl FnOnce() -> Result<()> + Send + 'static) -> AsyncTask<Self> {
        Work::make(work, |()| ())
    }
}

impl<T: Send + 'static, J: ToNapiValue + TypeName + 'static> Work<T, J> {
    /// Runs `work` on another thread; the promise settles with the result of `wrap`.
    pub(crate) fn make(
        work: impl FnOnce() -> Result<T> + Send + 'static,
        wrap: fn(T) -> J,
    ) -> AsyncTask<Self> {
        AsyncTask::new(Self {
            work: Some(Box::new(work)),
            wrap,
        })
    }
}

impl<T: Send + 'static, J: ToNapiValue + TypeName + 'static> Task for Work<T, J> {
    /// An error of the core too: it becomes an `Error` on JavaScript's thread.
    type Output = Result<T>;
    type JsValue = J;

    fn compute(&mut self) -> napi::Result<Result<T>> {
        let work = self.work.take();
        Ok(work.map_or_else(|| Err(closed("task")), |work| work())) // a task runs once
    }

    fn resolve(&mut self, env: Env, result: Result<T>) -> napi::Result<J> {
        let made = result.map_err(|error| throwable(&env, error))?;
        Ok((self.wrap)(made))
    }
}
