/**
 * What the doctor says of a machine, with each thing in each of its states.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { addToCommandLine, removeFromCommandLine } from '../../ts/doctor/commands.ts';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import type { FindingId, FindingState } from '../../ts/doctor/finding.ts';
import { PeerDmaError } from '../../ts/errors.ts';
import { readHost } from '../../ts/host/index.ts';
import { readSystem } from '../../ts/host/system/read-system.ts';
import { damage, damaged, untilDone } from '../support/sysfs/damage.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { MACHINE, SYS, TOP, type Wishes, diagnosed, found, noContainer, noIommufd, one } from './support.ts';

const GIB = 1n << 30n;
const NO_IOMMU = MACHINE.replaceAll(/ (?:group|iommu)=\S+/g, '');
const NO_TABLES = SYS.replace('DMAR = x\n', '');
const VIRTUAL = TOP.replace('fpu vme', 'fpu hypervisor vme');
const CONFIG = /CONFIG_VFIO_PCI=m\S*/;

test('a machine that is able', (t) => {
  const { state, machine, devices } = diagnosed(t, { machine: MACHINE.replace(/ bar4=\S+/, ''), facts: { ram: GIB } });
  t.deepEqual(
    [...machine, ...devices].map(({ state: each }) => each).filter((each) => each !== 'ok'),
    [],
  );
  t.is(state, 'ok');
  t.deepEqual(
    machine.map(({ id }) => id),
    [
      'kernel',
      'iommu',
      'interrupt-remapping',
      'vfio',
      'type1',
      'iommufd',
      'map-file',
      'device-files',
      'dma-buf',
      'memlock',
      'mappings',
      'huge-pages',
    ],
  );
  for (const { evidence } of machine) t.not(evidence, '');
});

const CASES: readonly (readonly [
  what: string,
  wishes: Wishes,
  id: FindingId,
  state: FindingState,
  says: RegExp,
  fix: RegExp | undefined,
])[] = [
  [
    'a kernel older than 5.4',
    { top: TOP.replace('= 7.3.4', '= 4.19.1') },
    'kernel',
    'warning',
    /older than 5\.4/,
    undefined,
  ],

  [
    'an IOMMU that the command line turns off',
    { machine: NO_IOMMU, top: TOP.replace('intel_iommu=on', 'intel_iommu=sm_off,off') },
    'iommu',
    'blocked',
    /Take intel_iommu=sm_off,off out/,
    /^sudo sed -i 's\/\\bintel_iommu=sm_off,off\\b\/\/' \/etc\/default\/grub && sudo update-grub$/,
  ],
  [
    'an IOMMU that Linux was not told to use',
    { machine: NO_IOMMU, top: TOP.replace(' intel_iommu=on', '') },
    'iommu',
    'blocked',
    /firmware has it on.*booted with intel_iommu=on/,
    /^sudo sed -i 's\/\^GRUB_CMDLINE_LINUX="\/&intel_iommu=on \/' \/etc\/default\/grub && sudo update-grub$/,
  ],
  [
    'firmware that has it off',
    { machine: NO_IOMMU, sys: NO_TABLES },
    'iommu',
    'blocked',
    /turn on the IOMMU in the firmware \(VT-d, AMD-Vi\)/,
    /^sudo systemctl reboot --firmware-setup$/,
  ],
  [
    'a virtual machine without one',
    { machine: NO_IOMMU, sys: NO_TABLES, top: VIRTUAL },
    'iommu',
    'blocked',
    /virtual machine.*-device intel-iommu,intremap=on/,
    undefined,
  ],
  [
    'a kernel without a driver for it',
    { machine: NO_IOMMU, top: TOP.replace('CONFIG_INTEL_IOMMU=y', 'CONFIG_X=y') },
    'iommu',
    'blocked',
    /no driver for one/,
    /^sudo apt-get install linux-image-amd64$/,
  ],
  [
    "an AMD machine's that Linux does not use",
    { machine: NO_IOMMU.replace('intel 6', 'amd 25'), sys: SYS.replace('DMAR', 'IVRS') },
    'iommu',
    'blocked',
    /though the firmware has one/,
    /^sudo dmesg \| grep -iE/,
  ],

  [
    'interrupts that are not remapped',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC') },
    'interrupt-remapping',
    'blocked',
    /^this machine has no interrupt remapping.*allow_unsafe_interrupts=1$/,
    /firmware-setup/,
  ],
  [
    'interrupts that are not remapped, in a virtual machine',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC'), top: VIRTUAL },
    'interrupt-remapping',
    'blocked',
    /no interrupt remapping/,
    undefined,
  ],
  [
    'interrupt remapping that is turned off',
    { sys: SYS.replace('IR-IO-APIC', 'PCI-MSI'), top: TOP.replace('quiet', 'intremap=off') },
    'interrupt-remapping',
    'blocked',
    /no interrupt remapping/,
    /\\bintremap=off\\b/,
  ],
  [
    'unsafe interrupts that somebody accepts',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC').replace('interrupts = N', 'interrupts = Y') },
    'interrupt-remapping',
    'warning',
    /as has been done for type1$/,
    /firmware-setup/,
  ],
  [
    'interrupt controllers that are not of an x86',
    { sys: SYS.replace('IR-IO-APIC', 'GICv3') },
    'interrupt-remapping',
    'unknown',
    /does not show/,
    undefined,
  ],

  [
    'VFIO that is not loaded',
    {
      machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''),
      sys: SYS.replace('vfio-pci/', 'nvme/'),
      facts: { probes: { type1: noContainer('ENOENT'), iommufd: noIommufd('ENOENT') } },
    },
    'vfio',
    'blocked',
    /^VFIO is not there: load it with "modprobe vfio-pci", .* \(ENOENT from open\(\/dev\/vfio\/vfio\)\)$/,
    /^sudo modprobe vfio-pci$/,
  ],
  [
    'VFIO without its driver for PCI devices',
    { machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''), sys: SYS.replace('vfio-pci/', 'nvme/') },
    'vfio',
    'blocked',
    /the driver vfio-pci is not there/,
    /^sudo modprobe vfio-pci$/,
  ],
  [
    'a kernel without VFIO, by its configuration',
    {
      machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''),
      sys: SYS.replace('vfio-pci/', 'nvme/'),
      top: TOP.replace(CONFIG, 'CONFIG_PCI=y'),
    },
    'vfio',
    'blocked',
    /^this kernel has no VFIO/,
    /linux-image-amd64/,
  ],
  [
    'a kernel without VFIO, by its modules',
    {
      machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''),
      sys: SYS.replace('vfio-pci/', 'nvme/'),
      top: `${TOP.replace(/config-.*/, '')}\n[lib/modules/7.3.4-test]\nmodules.dep = kernel/drivers/nvme/host/nvme.ko.xz:`,
    },
    'vfio',
    'blocked',
    /^this kernel has no VFIO/,
    /linux-image-amd64/,
  ],

  [
    'a container that this user may not open, and iommufd',
    { facts: { probes: { type1: noContainer('EACCES'), iommufd: { mapsFiles: true } } } },
    'type1',
    'warning',
    /may not open \/dev\/vfio\/vfio/,
    /^sudo chmod a\+rw \/dev\/vfio\/vfio$/,
  ],
  [
    'a container that this user may not open, and nothing else',
    { facts: { probes: { type1: noContainer('EACCES'), iommufd: noIommufd('ENOENT') } } },
    'type1',
    'blocked',
    /may not open \/dev\/vfio\/vfio/,
    /^sudo chmod a\+rw \/dev\/vfio\/vfio$/,
  ],
  [
    'iommufd that this user may not open',
    { facts: { probes: { type1: 'opened', iommufd: noIommufd('EACCES') } } },
    'iommufd',
    'warning',
    /may not open \/dev\/iommu/,
    /^sudo chown "\$USER" \/dev\/iommu$/,
  ],
  [
    'iommufd that is not loaded',
    { facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } } },
    'iommufd',
    'warning',
    /no \/dev\/iommu.*Linux 6\.2/,
    /^sudo modprobe iommufd$/,
  ],
  [
    'iommufd that the kernel does not have',
    {
      top: TOP.replace('CONFIG_IOMMUFD=m', 'CONFIG_X=m'),
      facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } },
    },
    'iommufd',
    'warning',
    /no \/dev\/iommu/,
    undefined,
  ],
  [
    'neither back end',
    { facts: { probes: { type1: noContainer('ENOENT'), iommufd: noIommufd('EACCES') } } },
    'iommufd',
    'blocked',
    /may not open \/dev\/iommu/,
    /chown/,
  ],
  [
    'iommufd that maps no files',
    { facts: { probes: { type1: 'opened', iommufd: { mapsFiles: false } } } },
    'map-file',
    'warning',
    /maps no files \(Linux 6\.13/,
    undefined,
  ],
  [
    'a device of VFIO without a file of its own',
    { machine: MACHINE.replace(' vfio=vfio0', '') },
    'device-files',
    'warning',
    /no file of its own.*Linux 6\.6/,
    undefined,
  ],
  [
    'no device of VFIO, and a kernel that gives files',
    { machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', '') },
    'device-files',
    'ok',
    /files of their own/,
    undefined,
  ],
  [
    'no device of VFIO, and a kernel built without files',
    { machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''), top: TOP.replace('CONFIG_VFIO_DEVICE_CDEV=y', '') },
    'device-files',
    'warning',
    /no file of its own/,
    undefined,
  ],
  [
    'no device of VFIO, and a kernel that may give files',
    { machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''), top: TOP.replace(/config-.*/, '') },
    'device-files',
    'unknown',
    /once one is bound/,
    undefined,
  ],
  [
    'a kernel before dma-bufs',
    { top: TOP.replaceAll('7.3.4', '6.18.4') },
    'dma-buf',
    'warning',
    /Linux 6\.19/,
    undefined,
  ],
  [
    'a kernel built without dma-bufs',
    { top: TOP.replace('CONFIG_VFIO_PCI_DMABUF=y', '') },
    'dma-buf',
    'warning',
    /gives out no BARs/,
    undefined,
  ],
  [
    'a kernel that may have been built with dma-bufs',
    { top: TOP.replace(/config-.*/, '') },
    'dma-buf',
    'unknown',
    /--open/,
    undefined,
  ],

  [
    'any RAM without a limit',
    { top: TOP.replace(/memory {9}\d+/, 'memory unlimited') },
    'memlock',
    'ok',
    /^any amount/,
    undefined,
  ],
  [
    'any RAM with CAP_IPC_LOCK',
    { top: TOP.replace('0000000000000000', '0000000000004000'), facts: { ram: 1n << 50n } },
    'memlock',
    'ok',
    /may lock any amount/,
    undefined,
  ],
  ['a limit that nothing is held against', {}, 'memlock', 'warning', /^up to 8 GiB.*--ram SIZE/, undefined],
  ['RAM up to the limit', { facts: { ram: 8n * GIB } }, 'memlock', 'ok', /8 GiB of RAM fit in/, undefined],
  [
    'RAM beyond the limit',
    { facts: { ram: 8n * GIB + 1n } },
    'memlock',
    'blocked',
    /raise RLIMIT_MEMLOCK/,
    /^sudo prlimit --pid \$\$ --memlock=8589934593:8589934593$/,
  ],

  [
    'the usual limit of mappings, for 1 TiB',
    { facts: { ram: 1024n * GIB } },
    'mappings',
    'ok',
    /24572 pieces.*1 TiB/,
    undefined,
  ],
  [
    'the usual limit of mappings, for 16 TiB',
    { facts: { ram: 16384n * GIB } },
    'mappings',
    'warning',
    /24572 pieces.*131072 blocks of 128 MiB/,
    /^sudo sysctl vm\.max_map_count=349530$/,
  ],
  [
    'a limit of mappings that nothing fits in',
    { top: TOP.replace('65530', '500') },
    'mappings',
    'blocked',
    /186 pieces/,
    /^sudo sysctl vm\.max_map_count=687$/,
  ],
  [
    'fewer mappings in a container than in the process',
    { sys: SYS.replace('65535', '1000'), facts: { ram: 256n * GIB } },
    'mappings',
    'warning',
    /1000 pieces/,
    /^echo 2048 \| sudo tee \/sys\/module\/vfio_iommu_type1\/parameters\/dma_entry_limit$/,
  ],

  [
    'huge pages for all RAM',
    { facts: { ram: GIB / 2n } },
    'huge-pages',
    'ok',
    /of 2 MiB for all RAM \(hugePages: '2M'\)/,
    undefined,
  ],
  [
    'too few huge pages, and those that come by themselves',
    { facts: { ram: GIB } },
    'huge-pages',
    'ok',
    /'transparent'/,
    undefined,
  ],
  [
    'no huge pages for all RAM',
    { sys: SYS.replace('[advise] never', 'advise [never]'), facts: { ram: GIB } },
    'huge-pages',
    'warning',
    /RAM of 1 GiB will be in pages of 4 KiB/,
    /^echo advise \| sudo tee \/sys\/kernel\/mm\/transparent_hugepage\/shmem_enabled$/,
  ],
  [
    'some huge pages, for RAM of whatever size',
    { sys: SYS.replace('[advise] never', 'advise [never]') },
    'huge-pages',
    'ok',
    /^512 MiB are free in huge pages of 2 MiB/,
    undefined,
  ],
  [
    'no word of huge pages',
    { sys: SYS.replaceAll(/\[kernel\/mm[^[]*/g, '').replaceAll('[advise] never deny force', '') },
    'huge-pages',
    'unknown',
    /does not show/,
    undefined,
  ],
];

for (const [what, wishes, id, state, says, fix] of CASES) {
  test(`${id}: ${what}`, (t) => {
    const finding = one(diagnosed(t, wishes), id);
    t.is(finding.state, state, finding.says);
    t.regex(finding.says, says);
    if (fix === undefined) t.is(finding.fix, undefined);
    else t.regex(finding.fix ?? '', fix);
    t.not(finding.evidence, '');
    if (state !== 'blocked') t.is(finding.code, undefined);
  });
}

test('the limit of mappings that is advised is enough, and one less than needed is not', (t) => {
  for (const ram of [undefined, 100n * GIB, 16384n * GIB]) {
    const state = (limit: number) => {
      const sys = SYS.replace('65535', '4000000');
      return one(diagnosed(t, { sys, top: TOP.replace('65530', String(limit)), facts: { ram } }), 'mappings');
    };
    const { fix = '' } = state(500);
    const advised = Number(/=(\d+)$/.exec(fix)?.[1]);
    t.is(state(advised).state, 'ok', fix);
    t.not(state(advised - 8).state, 'ok', fix);
  }
});

test('what can not be asked until something else is mended is not told', (t) => {
  const ids = (wishes: Wishes) => diagnosed(t, wishes).machine.map(({ id }) => id);
  t.false(ids({ machine: NO_IOMMU }).includes('interrupt-remapping'));
  const unloaded = {
    machine: MACHINE.replace('driver=vfio-pci vfio=vfio0', ''),
    sys: SYS.replace('vfio-pci/', 'nvme/'),
  };
  for (const id of ['type1', 'iommufd', 'dma-buf'] as const) t.false(ids(unloaded).includes(id), id);
  const alone = ids({ facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } } });
  for (const id of ['map-file', 'device-files', 'dma-buf'] as const) t.false(alone.includes(id), id);
});

test('a native core that is not there', (t) => {
  const missing = new PeerDmaError('ERR_NATIVE_CORE_MISSING', 'the package is not installed');
  const diagnosis = diagnosed(t, { facts: { probes: { type1: missing, iommufd: missing } } });
  t.like(one(diagnosis, 'native-core'), {
    state: 'blocked',
    code: 'ERR_NATIVE_CORE_MISSING',
    says: missing.message,
    fix: 'npm install --include=optional peerdma',
  });
  t.deepEqual(found(diagnosis, 'type1'), []);
  const other = new PeerDmaError('ERR_UNSUPPORTED_PLATFORM', 'it does not exist for darwin-arm64');
  const elsewhere = one(diagnosed(t, { facts: { probes: { type1: other, iommufd: other } } }), 'native-core');
  t.is(elsewhere.fix, undefined);
});

test('of a machine of which /sys is all there is, the rest is unknown and nothing of it ok', (t) => {
  const diagnosis = diagnosed(t, { top: undefined, facts: { probes: 'unknown' } });
  for (const id of ['kernel', 'memlock', 'mappings'] as const) t.is(one(diagnosis, id).state, 'unknown', id);
  for (const id of ['type1', 'iommufd', 'free', 'backend'] as const) t.deepEqual(found(diagnosis, id), [], id);
  for (const id of ['iommu', 'interrupt-remapping', 'vfio'] as const) t.is(one(diagnosis, id).state, 'ok', id);
  t.is(found(diagnosis, 'bar')[0]?.bar?.exportable, 'unknown');

  const bare = diagnosed(t, { machine: NO_IOMMU.replace('driver=vfio-pci vfio=vfio0', ''), sys: '', top: undefined });
  for (const id of ['iommu', 'vfio', 'huge-pages'] as const) t.is(one(bare, id).state, 'unknown', id);
});

test('what makes no sense in /sys is a warning with the files', (t) => {
  const sys = `${SYS}\n[bus/pci/devices/0000:00:1f.0]\nclass = many\nvendor = 0x8086`;
  const finding = one(diagnosed(t, { sys }), 'sysfs');
  t.is(finding.state, 'warning');
  t.regex(finding.says, /^1 file of \S+ makes no sense$/);
  t.regex(finding.evidence, /0000:00:1f\.0\/class says "many"/);
});

test('a word of the command line that a shell would understand makes no command', (t) => {
  const top = TOP.replace('intel_iommu=on', "iommu=off,$(reboot)';");
  const finding = one(diagnosed(t, { machine: NO_IOMMU, top }), 'iommu');
  t.regex(finding.says, /Take iommu=off,\$\(reboot\)'; out/);
  t.is(finding.fix, undefined);
});

test('the commands for the command line do what they say', (t) => {
  const root = expandTree(
    t,
    'grub = # as it was\\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\\nGRUB_CMDLINE_LINUX="ro intel_iommu=off,sm_on"',
  );
  const grub = join(root, 'grub');
  const run = (command = ''): string => {
    const [, sed = ''] = /^sudo (sed -i .*) && sudo update-grub$/.exec(command) ?? [];
    execFileSync('sh', ['-c', sed.replace('/etc/default/grub', grub)]);
    return readFileSync(grub, 'utf8').trim().split('\n').at(-1) ?? '';
  };
  t.is(run(removeFromCommandLine('intel_iommu=off,sm_on')), 'GRUB_CMDLINE_LINUX="ro "');
  t.is(run(addToCommandLine('intel_iommu=on')), 'GRUB_CMDLINE_LINUX="intel_iommu=on ro "');
  t.regex(readFileSync(grub, 'utf8'), /^# as it was\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n/);
});

test('a machine with any of its lines lost, and any of its characters changed, is diagnosed all the same', (t) => {
  const property = fc.property(damage, damage, (ofSys, ofTop) =>
    untilDone((scope) => {
      const root = expandTree(scope, damaged(`${describeMachine(MACHINE)}\n${SYS}`, ofSys));
      const host = readHost(root);
      const system = readSystem({ sys: root, top: expandTree(scope, damaged(TOP, ofTop)) }, host);
      const probes = { type1: 'opened', iommufd: { mapsFiles: true } } as const;
      const facts = { host, system, probes, ram: 64n << 30n, seesAllProcesses: true };
      const { machine, devices } = diagnosisOf(facts, [...host.functions.keys()]);
      const all = [...machine, ...devices.flatMap(({ findings }) => findings)];
      return all.every(
        ({ says, evidence }) => says !== '' && evidence !== '' && !/undefined|NaN/.test(says + evidence),
      );
    }),
  );
  fc.assert(property, { numRuns: 60 });
  t.pass();
});
