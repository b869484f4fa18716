//! The memory that KVM shares with the process for each processor: the last exit, and its answer.

use std::ptr;

use kvm_bindings::{KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_MMIO, kvm_run};
use kvm_ioctls::VcpuFd;

use crate::range::to_usize;

/// An access of the guest that KVM does not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) is_port: bool,
    pub(super) is_write: bool,
    pub(super) address: u64,
    /// Bytes of one element: 1, 2 or 4 for a port, up to 8 for memory.
    pub(super) width: usize,
    /// The number of elements: more than one for a string instruction on a port.
    pub(super) count: usize,
    /// The offset of the data in the area.
    offset: usize,
}

/// The area of a processor.
pub(super) struct RunArea<'fd> {
    run: &'fd mut kvm_run,
    length: usize,
}

impl<'fd> RunArea<'fd> {
    /// The area of `fd`, of the length that KVM reports.
    pub(super) fn of(fd: &'fd mut VcpuFd, length: usize) -> Self {
        let run = fd.get_kvm_run();
        Self { run, length }
    }

    /// Returns the access of the last exit, if it is one.
    pub(super) fn access(&self) -> Option<Access> {
        match self.run.exit_reason {
            KVM_EXIT_IO => {
                // SAFETY: the exit reason, which the kernel has set, selects this field.
                let io = unsafe { self.run.__bindgen_anon_1.io };
                let access = Access {
                    is_port: true,
                    is_write: u32::from(io.direction) != KVM_EXIT_IO_IN,
                    address: u64::from(io.port),
                    width: usize::from(io.size),
                    count: to_usize(u64::from(io.count)).ok()?,
                    offset: to_usize(io.data_offset).ok()?,
                };
                self.contains(&access).then_some(access)
            }
            KVM_EXIT_MMIO => {
                // SAFETY: as above.
                let mmio = unsafe { self.run.__bindgen_anon_1.mmio };
                let access = Access {
                    is_port: false,
                    is_write: mmio.is_write != 0,
                    address: mmio.phys_addr,
                    width: to_usize(u64::from(mmio.len)).ok()?,
                    count: 1,
                    offset: std::mem::offset_of!(kvm_run, __bindgen_anon_1.mmio.data),
                };
                (access.width <= mmio.data.len()).then_some(access)
            }
            _ => None,
        }
    }

    /// The number of the last exit's internal error.
    pub(super) fn internal_error(&self) -> u32 {
        // SAFETY: any bytes are a valid number. The field has it if the exit reason is an internal error.
        unsafe { self.run.__bindgen_anon_1.internal.suberror }
    }

    /// Returns an element of the data as a number.
    pub(super) fn get(&mut self, access: &Access, element: usize) -> u64 {
        let mut bytes = [0; 8];
        if let Some(address) = self.element(access, element) {
            // SAFETY: the element is within the area, which is mapped while `fd` exists. KVM writes it only in
            // `KVM_RUN`, which borrows `fd` too.
            unsafe { ptr::copy_nonoverlapping(address, bytes.as_mut_ptr(), access.width) };
        }
        u64::from_le_bytes(bytes)
    }

    /// Sets an element of the data. Bytes beyond its width are dropped.
    pub(super) fn set(&mut self, access: &Access, element: usize, value: u64) {
        if let Some(address) = self.element(access, element) {
            let bytes = value.to_le_bytes();
            // SAFETY: as in `get`.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address, access.width) };
        }
    }

    fn element(&mut self, access: &Access, element: usize) -> Option<*mut u8> {
        let within = element < access.count && access.width <= 8 && self.contains(access);
        let offset = element
            .checked_mul(access.width)?
            .checked_add(access.offset)?;
        let address = ptr::from_mut(self.run)
            .expose_provenance()
            .checked_add(offset)?;
        // The data may lie after the structure, in the same mapping.
        within.then(|| ptr::with_exposed_provenance_mut(address))
    }

    fn contains(&self, access: &Access) -> bool {
        let bytes = access.width.checked_mul(access.count);
        let end = bytes.and_then(|bytes| bytes.checked_add(access.offset));
        end.is_some_and(|end| end <= self.length)
    }
}
