//! Interrupts of a virtual machine: eventfds, and the routes of their numbers (GSI).

use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use super::system::failed;
use crate::event::EventFd;
use crate::{Error, ErrorCode, Result};

/// The number of interrupt lines: the pins of the I/O APIC. Numbers from this one on are routed as messages (MSI).
pub const LINES: u32 = 24;

/// A message that a number is routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiRoute {
    /// At least [`LINES`].
    pub gsi: u32,
    pub address: u64,
    pub data: u32,
}

/// The guest address of an access that signals an eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    pub is_port: bool,
    pub address: u64,
    /// The width in bytes (1, 2, 4 or 8) and the value of a write that signals the eventfd. `None`: any write.
    pub only: Option<(u32, u64)>,
}

/// Calls `act` with the descriptor of an eventfd as the type of `kvm-ioctls`.
fn lend<T>(event: &EventFd, act: impl FnOnce(&vmm_sys_util::eventfd::EventFd) -> T) -> T {
    // SAFETY: the descriptor is open while `event` is borrowed, and is not closed here.
    let lent = unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(event.raw_fd()) };
    act(&ManuallyDrop::new(lent))
}

/// Makes an eventfd raise an interrupt. With `resample`, the interrupt is a level: it ends, and `resample` is
/// signalled, when the guest acknowledges it.
pub(super) fn connect(
    vm: &VmFd,
    event: &EventFd,
    gsi: u32,
    resample: Option<&EventFd>,
) -> Result<()> {
    let result = lend(event, |event| match resample {
        None => vm.register_irqfd(event, gsi),
        Some(resample) => lend(resample, |resample| {
            vm.register_irqfd_with_resample(event, resample, gsi)
        }),
    });
    result.map_err(|error| {
        let operation = format!("connecting an event to interrupt {gsi}");
        failed("ioctl(KVM_IRQFD)", operation)(error)
    })
}

/// Ends the effect of [`connect`].
pub(super) fn disconnect(vm: &VmFd, event: &EventFd, gsi: u32) -> Result<()> {
    let operation = format!("disconnecting an event from interrupt {gsi}");
    lend(event, |event| vm.unregister_irqfd(event, gsi))
        .map_err(failed("ioctl(KVM_IRQFD)", operation))
}

/// Replaces the routes of all messages. The lines keep theirs: line n is pin n of the I/O APIC and, below 16, of the
/// two PICs.
pub(super) fn set_routes(vm: &VmFd, routes: &[MsiRoute]) -> Result<()> {
    let mut entries = lines();
    for route in routes {
        if route.gsi < LINES {
            let message = format!(
                "interrupt {} is a line: messages have numbers from {LINES} on",
                route.gsi
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        entries.push(message(route));
    }
    let too_many = |_| {
        let message = format!("{} interrupt routes are too many", entries.len());
        Error::new(ErrorCode::InvalidArgument, message)
    };
    let table = KvmIrqRouting::from_entries(&entries).map_err(too_many)?;
    let operation = format!("routing {} interrupts", routes.len());
    vm.set_gsi_routing(&table)
        .map_err(failed("ioctl(KVM_SET_GSI_ROUTING)", operation))
}

fn lines() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::new();
    for line in 0..LINES {
        let chip = match line {
            0..8 => Some((KVM_IRQCHIP_PIC_MASTER, line)),
            8..16 => Some((KVM_IRQCHIP_PIC_SLAVE, line & 7)),
            _ => None,
        };
        let both = chip.into_iter().chain([(KVM_IRQCHIP_IOAPIC, line)]);
        entries.extend(both.map(|(chip, pin)| pin_of(line, chip, pin)));
    }
    entries
}

fn pin_of(gsi: u32, chip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    entry
}

fn message(route: &MsiRoute) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi: route.gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    let (low, high) = halves(route.address);
    entry.u.msi.address_lo = low;
    entry.u.msi.address_hi = high;
    entry.u.msi.data = route.data;
    entry
}

fn halves(address: u64) -> (u32, u32) {
    let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
    (half(address), half(address >> 32))
}

/// Sends a message once.
pub(super) fn send(vm: &VmFd, address: u64, data: u32) -> Result<()> {
    let (address_lo, address_hi) = halves(address);
    let message = kvm_msi {
        address_lo,
        address_hi,
        data,
        ..Default::default()
    };
    let operation = format!("sending the message {data:#x} to {address:#x}");
    vm.signal_msi(message)
        .map(drop)
        .map_err(failed("ioctl(KVM_SIGNAL_MSI)", operation))
}

/// Makes writes of the guest signal an eventfd instead of an exit, or ends that.
pub(super) fn set_doorbell(
    vm: &VmFd,
    event: &EventFd,
    doorbell: &Doorbell,
    on: bool,
) -> Result<()> {
    let address = match doorbell.is_port {
        true => IoEventAddress::Pio(doorbell.address),
        false => IoEventAddress::Mmio(doorbell.address),
    };
    let operation = format!("a doorbell at {:#x}", doorbell.address);
    let invalid = || {
        let message =
            format!("{operation}: a write of 1, 2, 4 or 8 bytes has a value of that width");
        Error::new(ErrorCode::InvalidArgument, message)
    };
    macro_rules! set {
        ($value:expr) => {{
            let value = $value;
            lend(event, |event| {
                if on {
                    vm.register_ioevent(event, &address, value)
                } else {
                    vm.unregister_ioevent(event, &address, value)
                }
            })
        }};
    }
    let result = match doorbell.only {
        None => set!(NoDatamatch),
        Some((1, value)) => set!(u8::try_from(value).map_err(|_| invalid())?),
        Some((2, value)) => set!(u16::try_from(value).map_err(|_| invalid())?),
        Some((4, value)) => set!(u32::try_from(value).map_err(|_| invalid())?),
        Some((8, value)) => set!(value),
        Some(_) => return Err(invalid()),
    };
    result.map_err(failed("ioctl(KVM_IOEVENTFD)", operation))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_pin_of_the_io_apic() {
        let entries = lines();
        assert_eq!(entries.len(), 16 + 24);
        for line in 0..LINES {
            let count = entries.iter().filter(|entry| entry.gsi == line).count();
            assert_eq!(count, if line < 16 { 2 } else { 1 });
        }
    }
}
