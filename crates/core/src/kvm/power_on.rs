//! The power-on state of processors and interrupt controllers, to return to it.

use std::ops::RangeInclusive;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, Xsave, kvm_debugregs,
    kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave, kvm_xsave2,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vmm_sys_util::fam::FamStruct;

use super::system::failed;
use crate::{Error, ErrorCode, Result};

/// Registers of the memory types of ranges (MTRR), which KVM does not list.
///
/// They are 8 pairs of base and mask, the fixed ranges, and the default (Intel SDM volume 4, table 2-2).
const MEMORY_TYPES: [RangeInclusive<u32>; 5] = [
    0x200..=0x20f,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26f,
    0x2ff..=0x2ff,
];
/// Registers of machine checks, which KVM does not list either: 4 for each of at most 32 banks.
///
/// Sources: Intel SDM volume 4, table 2-2; Linux, arch/x86/kvm/x86.c, `KVM_MAX_MCE_BANKS`.
const MACHINE_CHECKS: RangeInclusive<u32> = 0x400..=0x47f;

/// The state of a processor that no guest has used.
///
/// It is all that a guest can change. The guest has no virtual machines of its own, whose state would be another part.
#[derive(Debug)]
pub(super) struct CpuPowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    /// Registers of the FPU and of vectors.
    xsave: Xsave,
    /// The register that enables them, unless the host has none.
    xcrs: Option<kvm_xcrs>,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    /// The model-specific registers that KVM can set.
    msrs: Vec<kvm_msr_entry>,
}

impl CpuPowerOn {
    pub(super) fn read(kvm: &Kvm, vm: &VmFd, fd: &VcpuFd) -> Result<Self> {
        let operation = "reading the power-on state of a virtual processor";
        Ok(Self {
            regs: fd
                .get_regs()
                .map_err(failed("ioctl(KVM_GET_REGS)", operation))?,
            sregs: fd
                .get_sregs()
                .map_err(failed("ioctl(KVM_GET_SREGS)", operation))?,
            xsave: read_xsave(vm, fd)?,
            xcrs: match kvm.check_extension(Cap::Xcrs) {
                true => Some(
                    fd.get_xcrs()
                        .map_err(failed("ioctl(KVM_GET_XCRS)", operation))?,
                ),
                false => None,
            },
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
        // SAFETY: the length is the one that KVM has reported, as in `read_xsave`.
        unsafe { fd.set_xsave2(&self.xsave) }.map_err(failed("ioctl(KVM_SET_XSAVE)", operation))?;
        if let Some(xcrs) = &self.xcrs {
            fd.set_xcrs(xcrs)
                .map_err(failed("ioctl(KVM_SET_XCRS)", operation))?;
        }
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

/// Returns the registers of the FPU and of vectors.
fn read_xsave(vm: &VmFd, fd: &VcpuFd) -> Result<Xsave> {
    let operation = "reading the power-on state of a virtual processor";
    let length = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
    let words = length
        .saturating_sub(size_of::<kvm_xsave>())
        .div_ceil(size_of::<<kvm_xsave2 as FamStruct>::Entry>());
    let mut xsave = Xsave::new(words)
        .map_err(|_| Error::new(ErrorCode::BadKernelData, "the state of vectors is too long"))?;
    if length == 0 {
        // Before Linux 5.17.
        let state = fd
            .get_xsave()
            .map_err(failed("ioctl(KVM_GET_XSAVE)", operation))?;
        // SAFETY: the length of the array stays as it is.
        unsafe { xsave.as_mut_fam_struct() }.xsave = state;
    } else {
        // SAFETY: the area has the length that KVM reports. The process enables no further states, which change it.
        unsafe { fd.get_xsave2(&mut xsave) }.map_err(failed("ioctl(KVM_GET_XSAVE2)", operation))?;
    }
    Ok(xsave)
}

/// Returns the registers that KVM can read and set. Its list has some that it cannot, and not all.
fn read_msrs(kvm: &Kvm, fd: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
    let list = kvm.get_msr_index_list().map_err(failed(
        "ioctl(KVM_GET_MSR_INDEX_LIST)",
        "listing the registers of a processor",
    ))?;
    let mut entries = Vec::new();
    let unlisted = MEMORY_TYPES.into_iter().chain([MACHINE_CHECKS]).flatten();
    for index in list.as_slice().iter().copied().chain(unlisted) {
        let entry = kvm_msr_entry {
            index,
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
