//! `ArrayBuffer`s of a file's bytes. They are unmapped when they are collected or, for a block, when it is closed.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use napi::bindgen_prelude::{FromNapiValue, JsValue, Unknown};
use napi::{Env, sys};
use napi_derive::napi;
use peerdma_core::memory::{View, ViewAround};
use peerdma_core::{Error, ErrorCode};

use crate::environment::runs_javascript;
use crate::error::{invalid, throwable};
use crate::numbers::U64;

/// A view, unmapped by the first caller that takes it. That is the finaliser, or the call that failed to create the
/// buffer.
type Shared = Mutex<Option<View>>;

/// Takes the view; only the first caller receives it.
fn take(shared: &Shared) -> Option<View> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Creates an `ArrayBuffer` of a view. The view is unmapped when the buffer is collected, in whichever worker.
/// JavaScript and devices may write the bytes at the same time, as with any shared memory.
pub(crate) fn array_buffer(env: &Env, view: View) -> napi::Result<Unknown<'_>> {
    let (address, length) = (view.address(), view.len());
    shared_buffer(env, &Arc::new(Mutex::new(Some(view))), address, length)
}

fn shared_buffer<'env>(
    env: &'env Env,
    shared: &Arc<Shared>,
    address: usize,
    length: usize,
) -> napi::Result<Unknown<'env>> {
    let hint = Arc::into_raw(Arc::clone(shared)).cast_mut().cast();
    let mut value = ptr::null_mut();
    // SAFETY: the memory stays mapped until the view is taken. `finalize` takes it when JavaScript no longer refers
    // to the bytes, and owns one count of `shared`, for its single call by Node-API.
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
        // SAFETY: created just now, in this call's scope.
        return unsafe { Unknown::from_napi_value(env.raw(), value) };
    }
    // Node 20 has called the finaliser already if it rejects a length; other versions may never call it. The
    // finaliser owns its count of `shared`: a few bytes leak at worst.
    drop(take(shared));
    // Clears Node's own exception, if any: the error below replaces it. SAFETY: the environment is the running
    // call's.
    let _ = unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &raw mut value) };
    let message = format!("creating an ArrayBuffer of {length} bytes of mapped memory failed");
    Err(throwable(env, Error::new(ErrorCode::OutOfRange, message)))
}

/// A mapped block of a file, which a call unmaps. The package does not expose its `ArrayBuffer`.
#[napi]
pub struct NativeFileBlock {
    shared: Arc<Shared>,
    start: u64,
    address: usize,
    length: usize,
    has_buffer: Cell<bool>,
}

impl NativeFileBlock {
    pub(crate) fn new(around: ViewAround) -> Self {
        let ViewAround { start, view } = around;
        Self {
            start,
            address: view.address(),
            length: view.len(),
            shared: Arc::new(Mutex::new(Some(view))),
            has_buffer: Cell::new(false),
        }
    }
}

#[napi]
impl NativeFileBlock {
    /// The offset in the file.
    #[napi(getter)]
    pub fn start(&self) -> U64 {
        U64(self.start)
    }

    /// Returns the bytes. Call it once.
    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn buffer<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        // A second buffer would still refer to the bytes after they are unmapped for the first.
        if self.has_buffer.replace(true) {
            return Err(throwable(env, invalid("a block has one buffer")));
        }
        shared_buffer(env, &self.shared, self.address, self.length)
    }

    /// Detaches the buffer and unmaps its bytes. If it is not the block's buffer, or was transferred, the bytes stay
    /// mapped until they are collected.
    #[napi]
    pub fn close(&self, env: &Env, #[napi(ts_arg_type = "ArrayBuffer")] buffer: Unknown<'_>) {
        let (mut data, mut length) = (ptr::null_mut(), 0);
        // SAFETY: both are values of this call, and Node-API checks that the value is an ArrayBuffer.
        let detached = unsafe {
            sys::napi_get_arraybuffer_info(env.raw(), buffer.raw(), &raw mut data, &raw mut length)
                == sys::Status::napi_ok
                && data.addr() == self.address
                && sys::napi_detach_arraybuffer(env.raw(), buffer.raw()) == sys::Status::napi_ok
        };
        if detached {
            drop(take(&self.shared));
        }
    }
}

/// Unmaps the view of collected bytes. When the environment ends, the view stays mapped for ever: Node-API calls the
/// finalisers then, even if the bytes are in use, and another thread may have received them by a transfer.
unsafe extern "C" fn finalize(env: sys::napi_env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `array_buffer` passed this count to the finaliser, once.
    let shared = unsafe { Arc::from_raw(hint.cast_const().cast::<Shared>()) };
    if runs_javascript(env) {
        drop(take(&shared));
    } else {
        std::mem::forget(take(&shared));
    }
}
