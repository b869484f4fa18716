//! The memory slots of a virtual machine, which map memory of this process for its processors.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use nix::errno::Errno;

use super::dirty_log::DirtyLog;
use super::slot_errors;
use super::system::errno_of;
use crate::batch::{MapRequest, Memory};
use crate::dropper;
use crate::mappings::Mappings;
use crate::memory::{Lease, Leases};
use crate::range::{to_u64, to_usize};
use crate::space::SpaceState;
use crate::{Error, ErrorCode, Range, Result};

const SET: &str = "ioctl(KVM_SET_USER_MEMORY_REGION)";
const GET_DIRTY_LOG: &str = "ioctl(KVM_GET_DIRTY_LOG)";
/// The unit of memory slots and of their dirty log on x86.
pub(super) const PAGE: u64 = 4096;

/// A memory slot.
#[derive(Debug)]
pub(super) struct Slot {
    number: u32,
    writable: bool,
    /// Keeps the memory mapped as it is while the guest can reach it.
    lease: Lease,
}

/// The leases of removed slots.
#[derive(Debug, Default)]
pub(super) struct RemovedSlots(Leases);

impl Extend<Slot> for RemovedSlots {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        self.0.extend(slots.into_iter().map(|slot| slot.lease));
    }
}

/// The numbers of slots, which are few.
#[derive(Debug, Default)]
struct SlotNumbers {
    released: Vec<u32>,
    /// The lowest number that was never used.
    next: u32,
    /// The number of slots that the kernel supports.
    limit: u32,
}

impl SlotNumbers {
    const fn new(limit: u32) -> Self {
        Self {
            released: Vec::new(),
            next: 0,
            limit,
        }
    }

    /// Returns a number that is not in use.
    fn free(&self) -> Option<u32> {
        let number = self.released.last().copied().unwrap_or(self.next);
        (number < self.limit).then_some(number)
    }

    /// Records that the number which `free` has returned is in use.
    fn take(&mut self, number: u32) {
        if self.released.last() == Some(&number) {
            self.released.pop();
        } else {
            self.next = self.next.saturating_add(1);
        }
    }

    fn release(&mut self, number: u32) {
        self.released.push(number);
    }
}

/// The descriptor of the virtual machine, and the records of its slots.
#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// `None` after the machine is closed.
    vm: Option<Arc<VmFd>>,
    mappings: Mappings<Slot>,
    numbers: SlotNumbers,
    logs_dirty_pages: bool,
    dirty_log: DirtyLog,
}

impl SlotState {
    pub(super) fn new(vm: Arc<VmFd>, limit: u32) -> Self {
        Self {
            vm: Some(vm),
            mappings: Mappings::default(),
            numbers: SlotNumbers::new(limit),
            logs_dirty_pages: false,
            dirty_log: DirtyLog::default(),
        }
    }

    /// Returns the descriptor of an open machine.
    pub(super) fn open(&self) -> Result<&Arc<VmFd>> {
        let closed = || Error::new(ErrorCode::Closed, "the virtual machine is closed");
        self.vm.as_ref().ok_or_else(closed)
    }

    /// Closes the descriptor of the machine. No slot is left.
    pub(super) fn close(&mut self) {
        self.vm = None;
    }

    /// Makes a slot and records it. Adds leases to drop to `removed`.
    pub(super) fn map(
        &mut self,
        request: &MapRequest,
        memory: Memory<'_>,
        removed: &mut RemovedSlots,
    ) -> Result<()> {
        let range = request.range;
        let Memory::Leased(lease) = memory else {
            let message = format!(
                "mapping {range} to a file is not possible: KVM maps only memory of this process"
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message).at(range));
        };
        match self.make(&range, request.writable, &lease) {
            Ok(number) => {
                let writable = request.writable;
                let slot = Slot {
                    number,
                    writable,
                    lease,
                };
                self.mappings.insert(range, slot, removed);
                Ok(())
            }
            Err(error) => {
                removed.extend([Slot {
                    number: 0,
                    writable: false,
                    lease,
                }]);
                Err(error.at(range))
            }
        }
    }

    /// Makes a slot, and returns its number.
    fn make(&mut self, range: &Range, writable: bool, lease: &Lease) -> Result<u32> {
        slot_errors::check_pages(range)?;
        self.open()?;
        let limit = self.numbers.limit;
        let number = self
            .numbers
            .free()
            .ok_or_else(|| slot_errors::all_in_use(range, limit))?;
        self.set(number, range, writable, lease, self.logs_dirty_pages)
            .map_err(|errno| slot_errors::not_made(range, &lease.range(), errno))?;
        self.numbers.take(number);
        Ok(number)
    }

    /// Makes a slot, or changes the flags of an existing one.
    fn set(
        &self,
        number: u32,
        range: &Range,
        writable: bool,
        lease: &Lease,
        log: bool,
    ) -> nix::Result<()> {
        let read_only = if writable { 0 } else { KVM_MEM_READONLY };
        // The kernel has no log of memory that the guest cannot write.
        let logged = if log && writable {
            KVM_MEM_LOG_DIRTY_PAGES
        } else {
            0
        };
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: read_only | logged,
            guest_phys_addr: range.start(),
            memory_size: range.len(),
            userspace_addr: lease.host_address(),
        };
        let Some(vm) = &self.vm else {
            return Err(Errno::EBADF);
        };
        // SAFETY: the lease keeps the memory mapped as it is, and the record owns it until the kernel has confirmed
        // the removal of the slot. The guest changes the memory at any time; no Rust reference points into it.
        unsafe { vm.set_user_memory_region(region) }.map_err(errno_of)
    }

    /// Removes a slot in the kernel, which waits until no processor uses it.
    fn delete(vm: &VmFd, range: &Range, number: u32) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: range.start(),
            memory_size: 0,
            userspace_addr: 0,
        };
        // SAFETY: a slot of size 0 maps no memory.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| slot_errors::not_removed(range, errno_of(error)).at(*range))
    }

    /// Turns the dirty log of all slots on or off. If it fails, it is as before, except for logs that nobody reads.
    pub(super) fn set_dirty_tracking(&mut self, on: bool) -> Result<()> {
        self.open()?;
        for (range, slot) in self.mappings.iter() {
            self.set(slot.number, &range, slot.writable, &slot.lease, on)
                .map_err(|errno| {
                    let operation = format!("dirty-page logging of {range}");
                    Error::os(ErrorCode::System, errno, SET, operation).at(range)
                })?;
        }
        self.logs_dirty_pages = on;
        if !on {
            self.dirty_log.clear();
        }
        Ok(())
    }

    /// Returns the guest address of the memory at an address in this process.
    pub(super) fn guest_address(&self, address: usize) -> Option<u64> {
        self.mappings.iter().find_map(|(range, slot)| {
            let offset = to_u64(address).checked_sub(slot.lease.host_address())?;
            (offset < range.len()).then(|| range.start().saturating_add(offset))
        })
    }

    /// Returns a bit for each page of `range`, set if the guest has written it since the last call.
    pub(super) fn dirty_pages(&mut self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        if page_size != PAGE {
            let message = format!("KVM logs pages of {PAGE} bytes, not of {page_size}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let vm = Arc::clone(self.open()?);
        let is_logged = |(of_slot, slot): &(Range, &Slot)| range.contains(of_slot) && slot.writable;
        let logged = self.mappings.iter().filter(is_logged);
        let slots: Vec<_> = logged
            .map(|(of_slot, slot)| (of_slot, slot.number))
            .collect();
        self.dirty_log.take(range, &slots, |of_slot, number| {
            vm.get_dirty_log(number, to_usize(of_slot.len())?)
                .map_err(|error| {
                    let operation = format!("reading the dirty pages of {of_slot}");
                    Error::os(ErrorCode::System, errno_of(error), GET_DIRTY_LOG, operation)
                        .at(*of_slot)
                })
        })
    }
}

impl SpaceState for SlotState {
    type Owner = Slot;
    type Removed = RemovedSlots;
    type Unguarded = ();

    fn mappings(&self) -> &Mappings<Slot> {
        &self.mappings
    }

    fn check_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    fn unmap(&mut self, range: &Range, removed: &mut RemovedSlots) -> Result<()> {
        let vm = Arc::clone(self.open()?);
        if let Some(cut) = self.mappings.cut_by(range) {
            return Err(slot_errors::cut(range, &cut).at(cut));
        }
        while let Some((first, number)) = self.mappings.first_in(range, |slot| slot.number) {
            Self::delete(&vm, &first, number)?;
            self.mappings.take_within(&first, removed);
            self.numbers.release(number);
            self.dirty_log.forget(number);
        }
        Ok(())
    }

    fn unmap_all(&mut self, removed: &mut RemovedSlots) -> Result<()> {
        self.unmap(&Range::new(0, u64::MAX)?, removed)
    }

    fn end(&mut self, (): &mut ()) {
        if self.vm.is_some() {
            dropper::drop_later(std::mem::take(self));
        }
    }
}

impl Drop for SlotState {
    fn drop(&mut self) {
        // The guest may still reach memory of slots that could not be removed: leaks it.
        if self.unmap_all(&mut RemovedSlots::default()).is_err() {
            self.mappings.take_all().for_each(std::mem::forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_slots_are_reused_up_to_the_limit() {
        let mut numbers = SlotNumbers::new(2);
        for expected in [0, 1] {
            assert_eq!(numbers.free(), Some(expected));
            assert_eq!(
                numbers.free(),
                Some(expected),
                "a slot that could not be made is free"
            );
            numbers.take(expected);
        }
        assert_eq!(numbers.free(), None);
        numbers.release(0);
        assert_eq!(numbers.free(), Some(0));
        numbers.take(0);
        assert_eq!(numbers.free(), None);
    }
}
