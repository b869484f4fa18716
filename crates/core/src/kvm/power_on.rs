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
/// The largest number of registers of one call.
///
/// Source: Linux, arch/x86/kvm/x86.c, `MAX_IO_MSRS`, which is the first that KVM rejects.
const MOST_REGISTERS: usize = 255;

/// The model-specific registers that can be read and set on the processors of a machine.
///
/// KVM lists some that cannot, and does not list all.
#[derive(Debug)]
pub(super) struct ModelSpecific(Vec<kvm_msr_entry>);

impl ModelSpecific {
    /// Determines the registers by one processor. The others have the same features.
    pub(super) fn probe(kvm: &Kvm, fd: &VcpuFd) -> Result<Self> {
        let operation = "listing the registers of a processor";
        let list = kvm
            .get_msr_index_list()
            .map_err(failed("ioctl(KVM_GET_MSR_INDEX_LIST)", operation))?;
        let unlisted = MEMORY_TYPES.into_iter().chain([MACHINE_CHECKS]).flatten();
        let entry = |index| kvm_msr_entry {
            index,
            ..Default::default()
        };
        let listed = list.as_slice().iter().copied();
        let entries: Vec<_> = listed.chain(unlisted).map(entry).collect();
        let readable = accepted(&entries, |part| {
            fd.get_msrs(part)
                .map_err(failed("ioctl(KVM_GET_MSRS)", operation))
        })?;
        let settable = accepted(&readable, |part| {
            fd.set_msrs(part)
                .map_err(failed("ioctl(KVM_SET_MSRS)", operation))
        })?;
        Ok(Self(settable))
    }

    /// Returns the values of a processor.
    fn read(&self, fd: &VcpuFd) -> Result<Vec<kvm_msr_entry>> {
        let operation = "reading the power-on state of a virtual processor";
        accepted(&self.0, |part| {
            fd.get_msrs(part)
                .map_err(failed("ioctl(KVM_GET_MSRS)", operation))
        })
    }
}

/// Calls `access` with registers in as few calls as possible, and returns those that it accepts.
///
/// `access` returns how many it has accepted before the first that it refuses. That one is left out.
fn accepted(
    entries: &[kvm_msr_entry],
    mut access: impl FnMut(&mut Msrs) -> Result<usize>,
) -> Result<Vec<kvm_msr_entry>> {
    let mut accepted = Vec::with_capacity(entries.len());
    for part in entries.chunks(MOST_REGISTERS) {
        let mut rest = part;
        while !rest.is_empty() {
            let mut list = Msrs::from_entries(rest)
                .map_err(|_| Error::new(ErrorCode::System, "too many registers of a processor"))?;
            let count = access(&mut list)?;
            accepted.extend(list.as_slice().iter().take(count));
            rest = rest.get(count.saturating_add(1)..).unwrap_or_default();
        }
    }
    Ok(accepted)
}

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
    pub(super) fn read(
        kvm: &Kvm,
        vm: &VmFd,
        fd: &VcpuFd,
        model_specific: &ModelSpecific,
    ) -> Result<Self> {
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
            msrs: model_specific.read(fd)?,
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
        accepted(&self.msrs, |part| {
            let count = fd
                .set_msrs(part)
                .map_err(failed("ioctl(KVM_SET_MSRS)", operation))?;
            match part.as_slice().get(count) {
                Some(kvm_msr_entry { index, .. }) => {
                    let message = format!("{operation}: KVM rejects the register {index:#x}");
                    Err(Error::new(ErrorCode::System, message))
                }
                None => Ok(count),
            }
        })?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{cpuid, system};
    use super::*;

    fn entries(indices: impl Iterator<Item = u32>) -> Vec<kvm_msr_entry> {
        let entry = |index| kvm_msr_entry {
            index,
            ..Default::default()
        };
        indices.map(entry).collect()
    }

    #[test]
    fn refused_registers_are_left_out_and_the_others_take_one_call_each_time() {
        for refused in [
            vec![],
            vec![0],
            vec![1, 2, 254],
            vec![255, 256, 599],
            vec![599],
        ] {
            let mut calls = 0;
            let all = entries(0..600);
            let found = accepted(&all, |part| {
                calls += 1;
                assert!(part.as_slice().len() <= MOST_REGISTERS);
                let is_refused = |entry: &kvm_msr_entry| refused.contains(&entry.index);
                let mut count = 0;
                for entry in part.as_mut_slice() {
                    if is_refused(entry) {
                        break;
                    }
                    entry.data = u64::from(entry.index) + 1;
                    count += 1;
                }
                Ok(count)
            })
            .unwrap();
            let expected: Vec<_> = (0..600).filter(|index| !refused.contains(index)).collect();
            let indices: Vec<_> = found.iter().map(|entry| entry.index).collect();
            assert_eq!(indices, expected);
            assert!(
                found
                    .iter()
                    .all(|entry| entry.data == u64::from(entry.index) + 1)
            );
            assert!(calls <= 600_usize.div_ceil(MOST_REGISTERS) + refused.len());
        }
    }

    #[test]
    fn a_failure_ends_the_calls() {
        let mut calls = 0;
        let failure = accepted(&entries(0..600), |_| {
            calls += 1;
            Err(Error::new(ErrorCode::System, "no memory"))
        });
        assert_eq!((failure.unwrap_err().code(), calls), (ErrorCode::System, 1));
    }

    #[test]
    #[ignore = "needs /dev/kvm"]
    fn each_processor_returns_to_its_own_values() {
        /// The page attributes, the default memory type, and the control of the first bank of machine checks.
        const CHANGED: [(u32, u64); 3] = [(0x277, 0x0606), (0x2ff, 0x806), (0x400, 0)];
        let kvm = system::open().unwrap();
        let vm = kvm.create_vm().unwrap();
        vm.create_irq_chip().unwrap();
        let supported = cpuid::supported(&kvm).unwrap();
        let mut known = None;
        for id in 0..2 {
            let fd = vm.create_vcpu(u64::from(id)).unwrap();
            fd.set_cpuid2(&cpuid::of_processor(&supported, id, 2).unwrap())
                .unwrap();
            let model_specific =
                known.get_or_insert_with(|| ModelSpecific::probe(&kvm, &fd).unwrap());
            let values = || {
                let mut list =
                    Msrs::from_entries(&entries(CHANGED.iter().map(|(index, _)| *index))).unwrap();
                assert_eq!(fd.get_msrs(&mut list).unwrap(), CHANGED.len());
                list.as_slice()
                    .iter()
                    .map(|entry| entry.data)
                    .collect::<Vec<_>>()
            };
            let own = kvm_msr_entry {
                index: 0x277,
                data: 0x0007_0406_0007_0400 | u64::from(id),
                ..Default::default()
            };
            fd.set_msrs(&Msrs::from_entries(&[own]).unwrap()).unwrap();
            let power_on = CpuPowerOn::read(&kvm, &vm, &fd, model_specific).unwrap();
            let before = values();
            let changed = CHANGED.map(|(index, data)| kvm_msr_entry {
                index,
                data,
                ..Default::default()
            });
            fd.set_msrs(&Msrs::from_entries(&changed).unwrap()).unwrap();
            assert_eq!(values(), CHANGED.map(|(_, data)| data));
            power_on.restore(&fd).unwrap();
            assert_eq!(values(), before);
            assert_eq!(before.first(), Some(&own.data));
        }
    }
}
