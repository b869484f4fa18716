//! Host memory, and reservations of address space.
//!
//! [`MemoryFile`] and [`PrivateMemory`] own memory; an [`AddressSpaceReservation`] maps parts of them at fixed
//! addresses; a [`Lease`] keeps such a mapping unchanged while an IOMMU, or another user, relies on it.
//!
//! Lock order: reservation, then private memory or device. Objects that a reservation or container removes are
//! dropped after its lock is released, because their drop may take locks.

mod budget;
mod bytes;
mod charged;
mod copy;
mod discard;
#[cfg(test)]
mod dropper_test;
mod extent;
#[cfg(test)]
mod extent_test;
mod fault_in;
#[cfg(test)]
mod faults;
mod file;
mod file_create;
mod file_io;
mod file_node;
mod file_pages;
mod file_part;
#[cfg(test)]
mod fork_test;
mod huge;
mod lease;
mod leasing;
mod memory_fd;
mod moves;
#[cfg(test)]
mod moves_test;
mod pacer;
mod pieces;
mod place;
mod place_file;
mod placed_file;
mod policy;
mod pool;
#[cfg(test)]
mod pool_test;
mod populate;
mod private;
mod released_addresses;
mod reservation;
mod sys;
mod view;

pub use bytes::{ByteSink, ByteSource};
pub(crate) use copy::{read_file, write_file};
pub use file::MemoryFile;
pub(crate) use file_pages::PartPages;
pub use huge::HugePages;
pub use lease::Lease;
pub(crate) use lease::Leases;
pub use place_file::FilePart;
pub use pool::FilePool;
pub(crate) use populate::threads as fault_in_threads;
pub use private::PrivateMemory;
pub use reservation::AddressSpaceReservation;
pub(crate) use sys::{Window, protection};
pub use view::{View, ViewAround};
