//! KVM: a virtual machine whose memory slots follow guest memory, and its processors.
//!
//! [`Machine`] owns the virtual machine. A memory slot holds a lease of its memory, as an IOMMU mapping does. Each
//! virtual processor has a thread. Accesses to ports and to memory without a slot go to one receiver as exits
//! ([`Exits`]), which answers them.
//!
//! Lock order: the memory slots, then the run gate; the descriptor of a processor, then nothing; the connected events,
//! then nothing.

mod connections;
mod cpu;
mod cpuid;
mod dirty_log;
mod exits;
mod gate;
mod interrupts;
mod ioctl;
mod kick;
mod machine;
mod memory_error;
#[cfg(test)]
mod memory_error_test;
mod power_on;
mod registers;
mod run_area;
mod slot_errors;
mod slots;
#[cfg(test)]
mod slots_test;
mod system;
#[cfg(test)]
mod test_machine;
mod vfio;

pub use exits::{Exit, ExitCell, Exits, Next};
pub use interrupts::{Doorbell, LINES, MsiRoute};
pub use machine::{Machine, MachineInfo};
pub use registers::REGISTER_WORDS;
