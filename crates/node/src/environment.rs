//! The end of an environment: that of a worker thread, or of the process.

use std::ptr;

use napi::{Env, sys};

/// Whether the environment can still run JavaScript. It cannot once it ends (`FreeEnvironment` in Node's
/// `src/api/environment.cc`). A cleanup hook would not help: Node finalises buffers before it runs any hook
/// (`Environment::RunCleanup` in `src/env.cc`).
pub(crate) fn runs_javascript(env: sys::napi_env) -> bool {
    // SAFETY: Node-API passed the environment to the calling finaliser. Without an error to throw, the call only
    // checks the environment.
    let status = unsafe { sys::napi_throw(env, ptr::null_mut()) };
    status == sys::Status::napi_invalid_arg
}

/// Drops a handle of VFIO or iommufd. The dropper's thread may have to close its object: when the environment ends,
/// the finaliser waits for that, so that the device can be opened again after the worker's end.
pub(crate) fn finalize_handle(env: &Env, handle: impl Sized) {
    drop(handle);
    if !runs_javascript(env.raw()) {
        peerdma_core::flush();
    }
}

/// Makes [`finalize_handle`] the finaliser of classes.
macro_rules! finalize_handles {
    ($($class:ty),+) => {$(
        impl napi::bindgen_prelude::ObjectFinalize for $class {
            fn finalize(self, env: napi::Env) -> napi::Result<()> {
                $crate::environment::finalize_handle(&env, self);
                Ok(())
            }
        }
    )+};
}
pub(crate) use finalize_handles;
