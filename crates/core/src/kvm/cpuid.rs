//! The CPUID of each processor: the features that KVM supports, and the topology.
//!
//! All processors are cores of one package, with one thread each. Sources: Intel SDM volume 2, CPUID; AMD APM volume 3,
//! appendix E.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};

use super::system::failed;
use crate::{Error, ErrorCode, Result};

/// Leaf 1, ECX.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 and leaf 0x8000_0001, ECX: virtual machines in the guest. A reset cannot restore their state.
const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;
/// Leaf 1, EDX: EBX has the number of processors.
const MULTI_THREADING: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX: the same of AMD.
const LEGACY_CORES: u32 = 1 << 1;
/// Leaves of the topology. Those with more levels, of Intel and of AMD, are left out.
const TOPOLOGY: u32 = 0xb;
const EXTENDED_TOPOLOGY: u32 = 0x1f;
const AMD_TOPOLOGY: u32 = 0x8000_0026;
/// Types of levels in leaf 0xb, ECX.
const THREAD: u32 = 1 << 8;
const CORE: u32 = 2 << 8;

/// Returns the entries that KVM supports.
pub(super) fn supported(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>> {
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
    Ok(entries)
}

/// Returns the CPUID of the processor with that APIC id, one of `count`.
pub(super) fn of_processor(supported: &[kvm_cpuid_entry2], id: u32, count: u32) -> Result<CpuId> {
    let is_topology = |entry: &kvm_cpuid_entry2| {
        let leaves = [TOPOLOGY, EXTENDED_TOPOLOGY, AMD_TOPOLOGY];
        leaves.contains(&entry.function)
    };
    let has_topology = supported.iter().any(|entry| entry.function == TOPOLOGY);
    let kept = supported.iter().filter(|entry| !is_topology(entry));
    let mut entries: Vec<_> = kept
        .map(|entry| with_processors(*entry, id, count))
        .collect();
    if has_topology {
        entries.extend(topology(id, count));
    }
    CpuId::from_entries(&entries).map_err(|_| {
        Error::new(
            ErrorCode::BadKernelData,
            "KVM reports too many CPUID entries",
        )
    })
}

fn with_processors(mut entry: kvm_cpuid_entry2, id: u32, count: u32) -> kvm_cpuid_entry2 {
    let others = count.saturating_sub(1);
    match entry.function {
        // EBX: bits 16 to 23 the number of processors, bits 24 to 31 the APIC id.
        1 => {
            entry.ecx &= !VMX;
            entry.ebx = (entry.ebx & 0xffff) | (count & 0xff) << 16 | (id & 0xff) << 24;
            if count > 1 {
                entry.edx |= MULTI_THREADING;
            }
        }
        // EAX: bits 26 to 31 the number of cores without one of them.
        4 => entry.eax = cache(entry.eax, others) | others.min(0x3f) << 26,
        // EAX: the same without the cores.
        0x8000_001d => entry.eax = cache(entry.eax, others),
        0x8000_0001 => {
            entry.ecx &= !SVM;
            if count > 1 {
                entry.ecx |= LEGACY_CORES;
            }
        }
        // ECX: bits 0 to 7 the number of processors without one of them, bits 12 to 15 the bits of their ids.
        0x8000_0008 => entry.ecx = others & 0xff | id_bits(count) << 12,
        // EAX: the APIC id. EBX: the core, with one thread. ECX: the node, the only one.
        0x8000_001e => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
    entry
}

/// Sets the number of processors that share a cache, without one of them: bits 14 to 25.
///
/// All share a cache of level 3 (bits 5 to 7), and none a cache of another level. Bits 26 to 31 are cleared.
fn cache(eax: u32, others: u32) -> u32 {
    let is_shared = eax >> 5 & 7 == 3;
    let sharing = if is_shared { others.min(0xfff) } else { 0 };
    (eax & 0x3fff) | sharing << 14
}

/// The levels of leaf 0xb: a thread, the cores, and the end.
fn topology(id: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, bits: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: bits,
        ebx: processors,
        ecx: index | kind,
        edx: id,
        ..Default::default()
    };
    [
        level(0, 0, 1, THREAD),
        level(1, id_bits(count), count, CORE),
        level(2, 0, 0, 0),
    ]
}

/// The number of bits of the ids of so many processors.
fn id_bits(count: u32) -> u32 {
    u32::BITS.saturating_sub(count.saturating_sub(1).leading_zeros())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ..Default::default()
        }
    }

    #[test]
    fn each_processor_is_a_core_of_one_package() {
        let host = [
            entry(1, 0, 0),
            entry(4, 1, 0xfc00_4121),
            entry(4, 3, 0xfc00_4163),
            entry(0xb, 0, 1),
            entry(0x1f, 0, 1),
            entry(0x8000_0026, 0, 1),
        ];
        let cpuid = of_processor(&host, 2, 3).unwrap();
        let find = |function, index| {
            let is_it =
                |entry: &&kvm_cpuid_entry2| entry.function == function && entry.index == index;
            cpuid.as_slice().iter().find(is_it).copied()
        };
        assert_eq!(find(1, 0).unwrap().ebx, 2 << 24 | 3 << 16);
        assert_eq!(find(4, 1).unwrap().eax, 2 << 26 | 0x121);
        assert_eq!(find(4, 3).unwrap().eax, 2 << 26 | 2 << 14 | 0x163);
        assert_eq!(find(0x1f, 0), None);
        assert_eq!(find(0x8000_0026, 0), None);
        let levels: Vec<_> = (0..3)
            .map(|index| find(0xb, index).unwrap())
            .map(|level| (level.eax, level.ebx, level.ecx, level.edx))
            .collect();
        assert_eq!(levels, [(0, 1, 0x100, 2), (2, 3, 0x201, 2), (0, 0, 2, 2)]);
    }

    #[test]
    fn caches_of_amd_are_shared_as_those_of_intel() {
        // A host whose two threads of a core share levels 1 and 2, and 16 threads share level 3.
        let host = [
            entry(0x8000_001d, 0, 0x4121),
            entry(0x8000_001d, 2, 0x4143),
            entry(0x8000_001d, 3, 15 << 14 | 0x163),
            kvm_cpuid_entry2 {
                eax: 7,
                ebx: 0x103,
                ecx: 0x101,
                ..entry(0x8000_001e, 0, 0)
            },
        ];
        let cpuid = of_processor(&host, 2, 3).unwrap();
        let registers = |entry: &kvm_cpuid_entry2| (entry.eax, entry.ebx, entry.ecx);
        let expected = [
            (0x121, 0, 0),
            (0x143, 0, 0),
            (2 << 14 | 0x163, 0, 0),
            (2, 2, 0), // core 2 with one thread, of node 0
        ];
        let found: Vec<_> = cpuid.as_slice().iter().map(registers).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn counts_the_bits_of_ids() {
        assert_eq!([1, 2, 3, 4, 5, 255].map(id_bits), [0, 1, 2, 2, 3, 8]);
    }
}
