//! Bytes of a file as an `ArrayBuffer`.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{FromNapiValue, Unknown};
use napi::{Env, sys};
use peerdma_core::memory::View;
use peerdma_core::{Error, ErrorCode};

use crate::environment::runs_javascript;
use crate::error::to_js;

/// A view, unmapped by the first that takes it: the finaliser, or the call that failed to hand it over.
type Shared = Mutex<Option<View>>;

/// Takes the view, which only one caller ever gets.
fn take(shared: &Shared) -> Option<View> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Makes an `ArrayBuffer` of a view. The view is unmapped when the bytes are collected, wherever they were transferred
/// to. JavaScript and devices may write them at the same time, as with any shared memory.
pub(crate) fn array_buffer(env: &Env, view: View) -> napi::Result<Unknown<'_>> {
    let (address, length) = (view.address(), view.len());
    let shared: Arc<Shared> = Arc::new(Mutex::new(Some(view)));
    let hint = Arc::into_raw(Arc::clone(&shared)).cast_mut().cast();
    let mut value = ptr::null_mut();
    // SAFETY: the memory stays mapped until the view is taken. `finalize` takes it when nothing of JavaScript refers to
    // the bytes any more, and owns one count of `shared`, for the one time that Node-API calls it.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env.raw(),
            ptr::with_exposed_provenance_mut(address),
            length,
            Some(finalize),
            hint,
            &raw mut value,
        )
    };
    if status == sys::Status::napi_ok {
        // SAFETY: made just now, in this call's scope.
        return unsafe { Unknown::from_napi_value(env.raw(), value) };
    }
    // Node 20 has called the finaliser already where it refuses a length; others may never call it. The finaliser's
    // count of `shared` is left to it: a few bytes leak at worst.
    drop(take(&shared));
    // Node's own exception, if it threw one, gives way to the error below.
    // SAFETY: the environment is the running call's.
    let _ = unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &raw mut value) };
    let message = format!("an ArrayBuffer of {length} bytes of mapped memory can't be made here");
    Err(to_js(Error::new(ErrorCode::OutOfRange, message)))
}

/// Unmaps the view of bytes that were collected. When the environment ends, the view stays mapped for good: Node-API
/// calls the finalisers then, whether the bytes are in use or not, and another thread may have got them by a transfer.
unsafe extern "C" fn finalize(env: sys::napi_env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `array_buffer` has handed this count over, once.
    let shared = unsafe { Arc::from_raw(hint.cast_const().cast::<Shared>()) };
    if runs_javascript(env) {
        drop(take(&shared));
    } else {
        std::mem::forget(take(&shared));
    }
}
