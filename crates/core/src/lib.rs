//! The system calls of peerdma: host memory, reservations, events, sockets, VFIO and iommufd.
//!
//! This crate does not depend on Node. Functions take plain integers, check them, and return an [`Error`] with a
//! stable code, the errno and the system call; no input makes them panic. Guest and device memory is only accessed
//! through raw addresses and system calls, never through a Rust reference: it can change or disappear at any time.
// Addresses and lengths come from callers: additions are checked or saturate, in release builds too.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("peerdma needs 64-bit Linux");

mod batch;
mod bitmap;
mod descriptor;
mod device_file;
mod dropper;
mod error;
pub mod event;
#[cfg(test)]
mod fake_kernel;
pub mod iommufd;
#[cfg(target_arch = "x86_64")]
pub mod kvm;
mod locked;
mod mappings;
pub mod memory;
mod page;
mod range;
mod range_list;
pub mod socket;
mod space;
#[cfg(test)]
mod space_test;
pub mod vfio;

pub use batch::{Batch, BatchError, MapRequest, MemorySource};
pub use descriptor::Descriptor;
pub use dropper::flush;
pub use error::{Error, ErrorCode, Result};
pub use page::{check_page_size, host_page_size};
pub use range::Range;
