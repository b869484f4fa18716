//! The power-on state of processors and interrupt controllers, to return to it.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_debugregs,
    kvm_fpu, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs,
    kvm_sregs, kvm_vcpu_events,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::system::failed;
use crate::{Error, ErrorCode, Result};

/// The state of a processor that no guest has used.
#[derive(Debug)]
pub(super) struct CpuPowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    /// The model-specific registers that KVM can set.
    msrs: Vec<kvm_msr_entry>,
}

impl CpuPowerOn {
    pub(super) fn read(kvm: &Kvm, fd: &VcpuFd) -> Result<Self> {
        let operation = "reading the power-on state of a virtual processor";
        Ok(Self {
            regs: fd
                .get_regs()
                .map_err(failed("ioctl(KVM_GET_REGS)", operation))?,
            sregs: fd
                .get_sregs()
                .map_err(failed("ioctl(KVM_GET_SREGS)", operation))?,
            fpu: fd
                .get_fpu()
                .map_err(failed("ioctl(KVM_GET_FPU)", operation))?,
            debug: fd
                .get_debug_regs()
                .map_err(failed("ioctl(KVM_GET_DEBUGREGS)", operation))?,
            events: fd
                .get_vcpu_events()
                .map_err(failed("ioctl(KVM_GET_VCPU_EVENTS)", operation))?,
            lapic: fd
                .get_lapic()
                .map_err(failed("ioctl(KVM_GET_LAPIC)", operation))?,
            mp_state: fd
                .get_mp_state()
                .map_err(failed("ioctl(KVM_GET_MP_STATE)", operation))?,
            msrs: read_msrs(kvm, fd)?,
        })
    }

    /// Returns the processor to this state.
    pub(super) fn restore(&self, fd: &VcpuFd) -> Result<()> {
        let operation = "resetting a virtual processor";
        fd.set_sregs(&self.sregs)
            .map_err(failed("ioctl(KVM_SET_SREGS)", operation))?;
        fd.set_regs(&self.regs)
            .map_err(failed("ioctl(KVM_SET_REGS)", operation))?;
        fd.set_fpu(&self.fpu)
            .map_err(failed("ioctl(KVM_SET_FPU)", operation))?;
        fd.set_debug_regs(&self.debug)
            .map_err(failed("ioctl(KVM_SET_DEBUGREGS)", operation))?;
        for entry in &self.msrs {
            let one = msrs(&[*entry])?;
            let count = fd
                .set_msrs(&one)
                .map_err(failed("ioctl(KVM_SET_MSRS)", operation))?;
            if count != 1 {
                let message = format!("{operation}: KVM rejects the register {:#x}", entry.index);
                return Err(Error::new(ErrorCode::System, message));
            }
        }
        fd.set_lapic(&self.lapic)
            .map_err(failed("ioctl(KVM_SET_LAPIC)", operation))?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("ioctl(KVM_SET_VCPU_EVENTS)", operation))?;
        fd.set_mp_state(self.mp_state)
            .map_err(failed("ioctl(KVM_SET_MP_STATE)", operation))
    }
}

/// Returns the registers that KVM can read and set: it lists some that it cannot.
fn read_msrs(kvm: &Kvm, fd: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
    let list = kvm.get_msr_index_list().map_err(failed(
        "ioctl(KVM_GET_MSR_INDEX_LIST)",
        "listing the registers of a processor",
    ))?;
    let mut entries = Vec::new();
    for index in list.as_slice() {
        let entry = kvm_msr_entry {
            index: *index,
            ..Default::default()
        };
        let mut one = msrs(&[entry])?;
        if fd.get_msrs(&mut one).is_ok_and(|count| count == 1)
            && fd.set_msrs(&one).is_ok_and(|count| count == 1)
        {
            entries.extend_from_slice(one.as_slice());
        }
    }
    Ok(entries)
}

fn msrs(entries: &[kvm_msr_entry]) -> Result<Msrs> {
    Msrs::from_entries(entries)
        .map_err(|_| Error::new(ErrorCode::System, "too many registers of a processor"))
}

/// The state of the interrupt controllers and the timer that no guest has used.
pub(super) struct BoardPowerOn {
    chips: Vec<kvm_irqchip>,
    timer: kvm_pit_state2,
}

impl std::fmt::Debug for BoardPowerOn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BoardPowerOn")
            .finish_non_exhaustive()
    }
}

impl BoardPowerOn {
    pub(super) fn read(vm: &VmFd) -> Result<Self> {
        let operation = "reading the power-on state of a virtual machine";
        let mut chips = Vec::new();
        for chip_id in [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ] {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(failed("ioctl(KVM_GET_IRQCHIP)", operation))?;
            chips.push(chip);
        }
        let timer = vm
            .get_pit2()
            .map_err(failed("ioctl(KVM_GET_PIT2)", operation))?;
        Ok(Self { chips, timer })
    }

    pub(super) fn restore(&self, vm: &VmFd) -> Result<()> {
        let operation = "resetting a virtual machine";
        for chip in &self.chips {
            vm.set_irqchip(chip)
                .map_err(failed("ioctl(KVM_SET_IRQCHIP)", operation))?;
        }
        vm.set_pit2(&self.timer)
            .map_err(failed("ioctl(KVM_SET_PIT2)", operation))
    }
}
