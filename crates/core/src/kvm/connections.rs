//! Events that are connected to a virtual machine: to an interrupt, or to writes of the guest.

use std::collections::HashMap;

use kvm_ioctls::VmFd;

use super::interrupts::{self, Doorbell};
use crate::event::EventFd;
use crate::{Error, ErrorCode, Result};

/// The effect of a connected event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// It raises the interrupt of this number.
    Interrupt(u32),
    /// Writes of the guest signal it.
    Doorbell(Doorbell),
}

/// The connected events, by numbers of their own.
///
/// Each is a clone. KVM identifies an event by an open descriptor of it, and disconnects one from its interrupt when
/// the last descriptor is closed.
#[derive(Debug, Default)]
pub(super) struct Connections {
    next: u32,
    connected: HashMap<u32, (EventFd, Effect)>,
}

impl Connections {
    /// Connects an event, and returns the number of the connection.
    ///
    /// `resample` makes an interrupt a level (`interrupts::connect`).
    pub(super) fn add(
        &mut self,
        vm: &VmFd,
        event: &EventFd,
        effect: Effect,
        resample: Option<&EventFd>,
    ) -> Result<u32> {
        match &effect {
            Effect::Interrupt(gsi) => interrupts::connect(vm, event, *gsi, resample),
            Effect::Doorbell(doorbell) => interrupts::set_doorbell(vm, event, doorbell, true),
        }?;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.connected.insert(number, (event.clone(), effect));
        Ok(number)
    }

    /// Ends a connection. If that fails, it can be repeated.
    pub(super) fn remove(&mut self, vm: &VmFd, number: u32) -> Result<()> {
        let Some((event, effect)) = self.connected.get(&number) else {
            let message = format!("the virtual machine has no connected event {number}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        };
        match effect {
            Effect::Interrupt(gsi) => interrupts::disconnect(vm, event, *gsi),
            Effect::Doorbell(doorbell) => interrupts::set_doorbell(vm, event, doorbell, false),
        }?;
        self.connected.remove(&number);
        Ok(())
    }
}
