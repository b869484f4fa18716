//! The Node-API addon: converts and checks arguments, calls `peerdma-core`, and nothing else.
//!
//! One class per thing that the core has, with the same operations under the same names. Numbers of
//! 64 bits cross as `bigint`, batches as `BigUint64Array`. Every failure is an `Error` whose message
//! is `CODE|ERRNO|SYSCALL|RANGE|text`, which TypeScript takes apart. Only the errors of napi-rs itself
//! (an argument of another class, a string that is none) have another form.
// Addresses and lengths come from outside: sums of them are checked or saturate, in release builds too.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod batch;
mod bytes;
mod device;
mod environment;
mod error;
mod event;
mod iommufd;
mod memory;
mod numbers;
mod reservation;
mod space;
mod task;
mod vfio;
mod view;

use napi::bindgen_prelude::AsyncTask;
use napi_derive::napi;

use crate::numbers::U64;
use crate::task::Work;

/// The size of the host's base pages in bytes.
#[napi(ts_return_type = "bigint")]
pub fn host_page_size() -> napi::Result<U64> {
    peerdma_core::host_page_size()
        .map(U64)
        .map_err(error::to_js)
}

/// Waits, on a worker thread, until all memory that was released before is returned to the system.
#[napi(ts_return_type = "Promise<void>")]
pub fn memory_settled() -> AsyncTask<Work> {
    Work::run(|| {
        peerdma_core::settle();
        Ok(())
    })
}
