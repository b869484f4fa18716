//! The Node-API addon: converts and checks arguments, and calls `peerdma-core`.
//!
//! It has one class for each object of the core, with the same operations under the same names. Numbers of 64 bits
//! are passed as `bigint`, batches as `BigUint64Array`. Every error has the fields of `NativeError`, whether a call
//! throws it, a promise is rejected with it, or a batch returns it. Only the errors of napi-rs itself (an argument of
//! another class, an invalid string) do not have them.
// Addresses and lengths come from callers: additions are checked or saturate, in release builds too.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod batch;
mod bytes;
mod device;
mod environment;
mod error;
mod event;
mod iommufd;
#[cfg(target_arch = "x86_64")]
mod kvm;
mod memory;
mod migration;
mod numbers;
mod reservation;
mod socket;
mod space;
mod task;
mod vfio;
mod view;

use napi::Env;
use napi::bindgen_prelude::AsyncTask;
use napi_derive::napi;

use crate::numbers::U64;
use crate::task::Work;

/// The size of the host's base pages in bytes.
#[napi]
pub fn host_page_size(env: &Env) -> napi::Result<U64> {
    error::or_throw(env, || peerdma_core::host_page_size().map(U64))
}

/// Waits, on a worker thread, until all memory that was released before is returned to the system.
#[napi(ts_return_type = "Promise<void>")]
pub fn memory_settled() -> AsyncTask<Work> {
    Work::run(|| {
        peerdma_core::flush();
        Ok(())
    })
}
