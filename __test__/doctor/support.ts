/**
 * A machine without problems as folders; tests remove parts of it. Results of the kernel are fake here;
 * __test__/vfio/doctor.test.ts uses a real kernel.
 */
import test, { type ExecutionContext } from 'ava';
import { PeerDmaError } from '../../ts/errors.ts';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import type { Facts } from '../../ts/doctor/facts.ts';
import type { Diagnosis, DoctorFinding, DoctorFindingId, DoctorFindingState } from '../../ts/doctor/finding.ts';
import { readHost } from '../../ts/host.ts';
import { readSystem } from '../../ts/host/system/read-system.ts';
import { containerUnavailable, iommufdUnavailable } from '../../ts/vfio/opening-errors.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';

export const GPU = '0000:01:00.0';
export const NIC = '0000:02:00.0';

/** Lines of describe.ts: a GPU that is bound to VFIO, and a network card of the host. */
export const MACHINE = `cpu intel 6
iommu dmar0 intel 48
host 0000:00 iommu=dmar0
  01.0 8086:352a root-port bus=01-01 group=1 driver=pcieport
    00.0 10de:2330 endpoint class=030200 group=20 driver=vfio-pci vfio=vfio0 reset=flr,bus bar0=pref64:16M@0x22000000000 bar2=pref64:2G@0x20000000000 bar4=mem32:256@0x80000000 bar5=io:128@0x3000
  02.0 8086:352a root-port bus=02-02 group=2 driver=pcieport
    00.0 15b3:101e endpoint class=020000 group=21 driver=mlx5_core reset=flr bar0=pref64:32M@0x28000000000`;

/** The rest of its /sys. */
export const SYS = `[bus/pci/drivers]
vfio-pci/
[kernel/irq/9]
chip_name = IR-IO-APIC
[module/vfio_iommu_type1/parameters]
allow_unsafe_interrupts = N
dma_entry_limit = 65535
[module/iommufd/parameters]
allow_unsafe_interrupts = N
[kernel/mm/transparent_hugepage]
shmem_enabled = always within_size [advise] never deny force
[kernel/mm/hugepages/hugepages-2048kB]
nr_hugepages = 512
free_hugepages = 256
[kernel/mm/hugepages/hugepages-1048576kB]
nr_hugepages = 0
free_hugepages = 0
[firmware/acpi/tables]
DMAR = x
FACP = x`;

/** The folders beside /sys. */
export const TOP = `[proc]
cmdline = BOOT_IMAGE=/vmlinuz ro intel_iommu=on quiet
cpuinfo = flags : fpu vme msr
[proc/sys/kernel]
osrelease = 7.3.4-test
[proc/sys/vm]
max_map_count = 65530
[proc/self]
status = CapEff: 0000000000000000
limits = Max locked memory         8589934592           8589934592           bytes
maps = one\\ntwo\\nthree
[proc/4711]
comm = qemu-system-x86
fd/3 -> /dev/kvm
[boot]
config-7.3.4-test = CONFIG_VFIO_PCI=m\\nCONFIG_INTEL_IOMMU=y\\nCONFIG_AMD_IOMMU=y\\nCONFIG_IOMMUFD=m\\nCONFIG_VFIO_DEVICE_CDEV=y\\nCONFIG_VFIO_PCI_DMABUF=y
[dev/vfio]
20 =
vfio =
[dev/vfio/devices]
vfio0 =`;

/** The same machine with its IOMMU off. */
export const NO_IOMMU = MACHINE.replaceAll(/ (?:group|iommu)=\S+/g, '');
/** Without a device that is bound to VFIO; with {@link UNLOADED}, without VFIO. */
export const UNBOUND = MACHINE.replace('driver=vfio-pci vfio=vfio0', '');
export const UNLOADED = SYS.replace('vfio-pci/', 'nvme/');

export const GIB = 1n << 30n;

export interface Wishes {
  readonly machine?: string;
  readonly sys?: string;
  /** `undefined`: there is only /sys. */
  readonly top?: string | undefined;
  readonly facts?: Partial<Facts>;
}

export function factsOf(t: ExecutionContext, { machine = MACHINE, sys = SYS, facts, ...rest }: Wishes = {}): Facts {
  const root = expandTree(t, `${describeMachine(machine)}\n${sys}`);
  const top = 'top' in rest ? rest.top : TOP;
  const host = readHost(root);
  return {
    host,
    system: readSystem({ sys: root, top: top === undefined ? undefined : expandTree(t, top) }, host),
    probes: { type1: 'opened', iommufd: { mapsFiles: true } },
    ram: undefined,
    seesAllProcesses: true,
    ...facts,
  };
}

/** Of the GPU, unless other devices are named. */
export function diagnosed(t: ExecutionContext, wishes: Wishes = {}, devices: readonly string[] = [GPU]): Diagnosis {
  return diagnosisOf(factsOf(t, wishes), devices);
}

/** Findings with that id, about the machine or devices. */
export function found({ machine, devices }: Diagnosis, id: DoctorFindingId): DoctorFinding[] {
  return [...machine, ...devices.flatMap(({ findings }) => findings)].filter((finding) => finding.id === id);
}

/** The only one with that id. */
export function one(diagnosis: Diagnosis, id: DoctorFindingId): DoctorFinding {
  const [finding, ...more] = found(diagnosis, id);
  if (finding === undefined || more.length > 0) throw new Error(`${more.length + 1} or no findings: ${id}`);
  return finding;
}

function refused(errno: string, path: string): PeerDmaError {
  return new PeerDmaError('ERR_SYSTEM', `opening ${path}`, { errno, syscall: `open(${path})` });
}

/** /dev/vfio/vfio as the kernel rejects it. */
export const noContainer = (errno: string): PeerDmaError => containerUnavailable(refused(errno, '/dev/vfio/vfio'));

/** /dev/iommu likewise. */
export const noIommufd = (errno: string): PeerDmaError => iommufdUnavailable(refused(errno, '/dev/iommu'));

/** A problem of a machine, and its finding. */
export type Case = readonly [
  what: string,
  wishes: Wishes,
  id: DoctorFindingId,
  state: DoctorFindingState,
  text: RegExp,
  fix: RegExp | undefined,
];

/** A test for each. */
export function testCases(cases: readonly Case[]): void {
  for (const [what, wishes, id, state, text, fix] of cases) {
    test(`${id}: ${what}`, (t) => {
      const finding = one(diagnosed(t, wishes), id);
      t.is(finding.state, state, finding.text);
      t.regex(finding.text, text);
      if (fix === undefined) t.is(finding.fix, undefined);
      else t.regex(finding.fix ?? '', fix);
      t.not(finding.evidence, '');
      if (state !== 'blocked') t.is(finding.code, undefined);
    });
  }
}
