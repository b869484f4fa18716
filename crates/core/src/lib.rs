//! Every operating-system call of peerdma: host memory, the reservation it is placed in, events, VFIO and iommufd.
//!
//! Nothing here knows Node. Functions take plain integers, check them, and answer with an [`Error`]
//! that carries a stable code, the errno and the system call; no input makes them panic.
//! Guest and device memory is only ever reached through raw addresses and system calls, never
//! through a Rust reference: it may change, or vanish, at any moment.
// Addresses and lengths come from outside: sums of them are checked or saturate, in release builds too.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("peerdma needs 64-bit Linux");

mod batch;
mod bitmap;
mod dropper;
mod error;
pub mod event;
#[cfg(test)]
mod fake_kernel;
pub mod iommufd;
mod locked;
mod mappings;
pub mod memory;
mod page;
mod range;
mod range_list;
#[cfg(test)]
mod space_test;
pub mod vfio;

pub use batch::{Batch, BatchError, MapRequest, Source};
pub use dropper::settle;
pub use error::{Error, ErrorCode, Result};
pub use page::{check_page_size, host_page_size};
pub use range::Range;
