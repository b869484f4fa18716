//! The end of an environment: a worker thread's, or the process's.

use std::ptr;

use napi::{Env, sys};

/// Whether the environment can still run JavaScript; it no longer can when it ends (`FreeEnvironment` in Node's
/// `src/api/environment.cc`). No cleanup hook would tell: Node finalises buffers before it runs any
/// (`Environment::RunCleanup` in `src/env.cc`).
pub(crate) fn runs_javascript(env: sys::napi_env) -> bool {
    // SAFETY: Node-API passed the environment to the finaliser that asks. Without an error to throw, the call only
    // checks.
    let status = unsafe { sys::napi_throw(env, ptr::null_mut()) };
    status == sys::Status::napi_invalid_arg
}

/// Drops a handle of VFIO or iommufd. The dropper's thread may have to close what is behind it: when the environment
/// ends, the finaliser waits for that, so that whoever waits for the end of a worker can open the device again.
pub(crate) fn finalize_handle(env: &Env, handle: impl Sized) {
    drop(handle);
    if !runs_javascript(env.raw()) {
        peerdma_core::settle();
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
