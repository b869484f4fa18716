//! Bytes of a file as an `ArrayBuffer`.

use std::ffi::c_void;
use std::ptr;

use napi::bindgen_prelude::{FromNapiValue, Unknown};
use napi::{Env, check_status, sys};
use peerdma_core::memory::View;

/// Makes an `ArrayBuffer` of a view, which lives until the buffer's memory is collected: also where that was transferred to another
/// buffer. JavaScript and devices may write it at the same time, as they may write any shared memory.
pub(crate) fn array_buffer(env: &Env, view: View) -> napi::Result<Unknown<'_>> {
    let (address, length) = (view.address(), view.len());
    let kept = Box::into_raw(Box::new(view));
    let mut value = ptr::null_mut();
    // SAFETY: the memory is mapped until `release` drops the view, which Node-API calls once, when nothing of JavaScript
    // refers to it any more.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env.raw(),
            ptr::with_exposed_provenance_mut(address),
            length,
            Some(release),
            kept.cast(),
            &raw mut value,
        )
    };
    if status != sys::Status::napi_ok {
        // SAFETY: it was not handed over; nobody else has it.
        drop(unsafe { Box::from_raw(kept) });
    }
    check_status!(status, "no buffer of foreign memory can be made here")?;
    // SAFETY: made just now, in this call's scope.
    unsafe { Unknown::from_napi_value(env.raw(), value) }
}

unsafe extern "C" fn release(_env: sys::napi_env, _data: *mut c_void, hint: *mut c_void) {
    // SAFETY: what `array_buffer` has handed over, once.
    drop(unsafe { Box::from_raw(hint.cast::<View>()) });
}
