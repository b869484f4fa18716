//! Work for a thread of libuv's pool, which owns all it needs.

use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Task};
use peerdma_core::Result;

use crate::error::to_js;

/// A call that may take long: pinning or faulting in memory.
pub struct Work(Option<Box<dyn FnOnce() -> Result<()> + Send>>);

impl Work {
    /// Runs `work` on another thread; the promise settles with its result.
    pub(crate) fn run(work: impl FnOnce() -> Result<()> + Send + 'static) -> AsyncTask<Self> {
        AsyncTask::new(Self(Some(Box::new(work))))
    }
}

impl Task for Work {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        self.0.take().map_or(Ok(()), |work| work().map_err(to_js))
    }

    fn resolve(&mut self, _env: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}
