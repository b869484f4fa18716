//! The CPUID of each processor: what KVM supports, with the number of the processor.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::system::failed;
use crate::{Error, ErrorCode, Result};

/// Bits of leaf 1, ECX (Intel SDM volume 2, CPUID).
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;

/// Returns the CPUID that KVM supports, for a virtual machine.
pub(super) fn supported(kvm: &Kvm) -> Result<CpuId> {
    let operation = "reading the features of the processor";
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("ioctl(KVM_GET_SUPPORTED_CPUID)", operation))?;
    let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    let mut entries = cpuid.as_slice().to_vec();
    for entry in entries.iter_mut().filter(|entry| entry.function == 1) {
        entry.ecx |= HYPERVISOR;
        if tsc_deadline {
            entry.ecx |= TSC_DEADLINE;
        }
    }
    of(&entries)
}

/// Returns the CPUID of the processor with that APIC id.
pub(super) fn of_processor(supported: &CpuId, id: u32, count: u32) -> Result<CpuId> {
    let mut entries = supported.as_slice().to_vec();
    for entry in &mut entries {
        match entry.function {
            // EBX: bits 16 to 23 the number of processors, bits 24 to 31 the APIC id.
            1 => entry.ebx = (entry.ebx & 0xffff) | (count & 0xff) << 16 | (id & 0xff) << 24,
            // EDX: the x2APIC id.
            0xb | 0x1f => entry.edx = id,
            // EAX: the extended APIC id (AMD APM volume 3, CPUID).
            0x8000_001e => entry.eax = id,
            _ => {}
        }
    }
    of(&entries)
}

fn of(entries: &[kvm_cpuid_entry2]) -> Result<CpuId> {
    let too_many = |_| {
        Error::new(
            ErrorCode::BadKernelData,
            "KVM reports too many CPUID entries",
        )
    };
    CpuId::from_entries(entries).map_err(too_many)
}
