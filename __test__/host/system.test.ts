/**
 * Machine facts other than PCI devices, from valid and invalid files.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { readHost } from '../../ts/host.ts';
import { isAtLeast, optionOf } from '../../ts/host/system/kernel.ts';
import { type SystemFacts, readSystem } from '../../ts/host/system/read-system.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { untilDone } from '../support/sysfs/damage.ts';
import { expandTree } from '../support/sysfs/expand.ts';

const DEVICES = describeMachine(
  'host 0000:00\n  04.0 1234:11e8 group=3 driver=vfio-pci vfio=vfio7\n  05.0 1234:11e8 group=4',
);
const RELEASE = '6.12.43+deb12-amd64';
const VERSION = `[proc/sys/kernel]\nosrelease = ${RELEASE}`;

/** With `fill` for files that text cannot describe. */
function read(t: ExecutionContext, sys: string, top: string, fill?: (sys: string, top: string) => void): SystemFacts {
  const roots = { sys: expandTree(t, `${DEVICES}\n${sys}`), top: expandTree(t, top) };
  fill?.(roots.sys, roots.top);
  return readSystem(roots, readHost(roots.sys));
}

function kernel(facts: SystemFacts) {
  if (facts.kernel === 'unknown') throw new Error('the kernel is known');
  return facts.kernel;
}

test("reads the kernel's version and command line", (t) => {
  const facts = kernel(read(t, '', `${VERSION}\n[proc]\ncmdline = ro  quiet intel_iommu=on`));
  t.is(facts.release, RELEASE);
  t.deepEqual([facts.major, facts.minor], [6, 12]);
  t.deepEqual(
    facts.commandLine.map(({ text }) => text),
    ['ro', 'quiet', 'intel_iommu=on'],
  );
  for (const [wanted, is] of [
    [[5, 40], true],
    [[6, 12], true],
    [[6, 13], false],
    [[7, 0], false],
  ] as const) {
    t.is(isAtLeast(facts, wanted), is, wanted.join('.'));
  }
  t.deepEqual([facts.config, facts.modules], ['unknown', 'unknown']);
});

test("finds the kernel's configuration in each of its places", (t) => {
  const config = '# CONFIG_VFIO_NOIOMMU is not set\nCONFIG_VFIO=m\nCONFIG_IOMMUFD=y\nCONFIG_HZ=250';
  const places: [string, string, ((sys: string, top: string) => void)?][] = [
    ['/boot', `[boot]\nconfig-${RELEASE} = ${config.replaceAll('\n', '\\n')}`],
    ['/lib/modules', `[lib/modules/${RELEASE}]\nconfig = ${config.replaceAll('\n', '\\n')}`],
    ['/proc', '', (_, top) => writeFileSync(join(top, 'proc/config.gz'), gzipSync(config))],
  ];
  for (const [place, tree, fill] of places) {
    const facts = kernel(read(t, '', `${VERSION}\n${tree}`, fill));
    const of = (option: string) => optionOf(facts, option);
    t.deepEqual(['VFIO', 'IOMMUFD', 'VFIO_NOIOMMU', 'HZ'].map(of), ['m', 'y', 'n', 'n'], place);
  }
});

test("reads the kernel's modules if its configuration is missing", (t) => {
  const lists =
    'modules.dep = kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\\nextra/top.ko:\nmodules.builtin = kernel/drivers/iommu/iommufd/iommufd.ko';
  const facts = kernel(read(t, '', `${VERSION}\n[lib/modules/${RELEASE}]\n${lists}`));
  t.deepEqual([...(facts.modules as ReadonlySet<string>)].sort(), ['iommufd', 'top', 'vfio_pci']);
  t.is(optionOf(facts, 'VFIO_PCI', 'vfio_pci'), 'm');
  t.is(optionOf(facts, 'NVME', 'nvme'), 'n');
  t.is(optionOf(facts, 'VFIO_DEVICE_CDEV'), 'unknown', 'without a list of modules it is unknown');
});

test('reads the interrupt controllers and the parameters of the modules', (t) => {
  const irqs = (...chips: string[]) => chips.map((chip, irq) => `[kernel/irq/${irq}]\nchip_name = ${chip}`).join('\n');
  const parameter = '[module/iommufd/parameters]\nallow_unsafe_interrupts = Y';
  t.deepEqual(
    read(t, `${irqs('IR-IO-APIC', 'IR-PCI-MSI-0000:00:04.0', 'dummy', 'IR-IO-APIC')}\n${parameter}`, '').interrupts,
    {
      remapped: true,
      chips: ['IR-IO-APIC', 'IR-PCI-MSI-0000:00:04.0'],
      unsafeAllowed: { type1: false, iommufd: true },
    },
  );
  t.like(read(t, irqs('IO-APIC', 'PCI-MSI', 'dummy'), '').interrupts, {
    remapped: false,
    chips: ['IO-APIC', 'PCI-MSI'],
  });
  t.like(read(t, irqs('XT-PIC', 'dummy'), '').interrupts, { remapped: 'unknown', chips: [] });
  t.is(read(t, '', '').interrupts.remapped, 'unknown');
});

test('reads the limits of the process, and whether the machine is virtual', (t) => {
  const facts = read(
    t,
    '',
    `[proc/self]
status = Name: node\\nCapEff: 000001ffffffbfff
limits = Max file locks            unlimited            unlimited            locks\\nMax locked memory         8388608              unlimited            bytes
maps = 1\\n2
[proc]
cpuinfo = processor : 0\\nflags : fpu hypervisor
[proc/sys/vm]
max_map_count = 1048576`,
  );
  t.deepEqual(facts.limits, { memlock: 8n << 20n, ipcLock: false, mappings: 1048576, mapped: 2 });
  t.true(facts.virtual);
  t.false(read(t, '', '[proc]\ncpuinfo = flags : fpu hypervisors').virtual);
  t.is(read(t, '', '[proc]\ncpuinfo = nothing').virtual, 'unknown');
});

test('huge pages', (t) => {
  const sys = `[kernel/mm/hugepages/hugepages-1048576kB]
nr_hugepages = 4
free_hugepages = 3
[kernel/mm/hugepages/hugepages-2048kB]
nr_hugepages = lots
[kernel/mm/hugepages/other]
nr_hugepages = 1
[kernel/mm/transparent_hugepage]
shmem_enabled = always within_size [advise] never`;
  t.deepEqual(read(t, sys, '').hugePages, {
    pools: [
      { pageSize: 2n << 20n, pages: 'unknown', free: 'unknown' },
      { pageSize: 1n << 30n, pages: 4, free: 3 },
    ],
    transparent: 'advise',
  });
});

test('reads the device files, and the processes that have them open', (t) => {
  const facts = read(
    t,
    '[bus/pci/drivers]\nvfio-pci/\n[firmware/acpi/tables]\nDMAR = x\nAPIC = x\ndata/',
    '[dev/vfio]\n3 =\n[proc/12]\ncomm = qemu\nfd/5 -> /dev/vfio/3\nfd/6 -> /etc/passwd\n[proc/13]\ncomm = sh\nfd/0 -> /dev/null',
  );
  t.deepEqual([...facts.access].sort(), [
    ['/dev/vfio/3', 'ok'],
    ['/dev/vfio/4', 'ENOENT'],
    ['/dev/vfio/devices/vfio7', 'ENOENT'],
  ]);
  t.deepEqual(facts.openFiles, [
    { process: 12, program: 'qemu', file: '/dev/vfio/3' },
    { process: 13, program: 'sh', file: '/dev/null' },
  ]);
  t.true(facts.vfioPci);
  t.deepEqual(facts.iommuTables, ['DMAR']);
  t.false(read(t, '[bus/pci/drivers]\nnvme/', '').vfioPci);
});

test('this machine', (t) => {
  const facts = readSystem({ sys: '/sys', top: '/' }, { functions: new Map() } as never);
  t.is(kernel(facts).release, execFileSync('uname', ['-r'], { encoding: 'utf8' }).trim());
  t.is(typeof facts.limits.mappings, 'number');
  t.true(Number(facts.limits.mapped) > 10);
  t.not(facts.limits.memlock, 'unknown');
  t.not(facts.limits.ipcLock, 'unknown');
});

test('invalid facts are unknown: pipes, loops, folders, truncated and endless files', (t) => {
  const facts = read(
    t,
    '',
    '[proc/sys/vm]\nmax_map_count = many\n[proc/self]\nlimits = Max locked memory some',
    (sys, top) => {
      mkdirSync(join(sys, 'kernel/irq/1/chip_name'), { recursive: true });
      writeFileSync(join(sys, 'module'), '');
      mkdirSync(join(sys, 'firmware/acpi'), { recursive: true });
      writeFileSync(join(sys, 'firmware/acpi/tables'), '');
      mkdirSync(join(top, 'proc/sys/kernel'));
      writeFileSync(join(top, 'proc/sys/kernel/osrelease'), '7.3.4-test\n');
      symlinkSync('/dev/zero', join(top, 'proc/config.gz'));
      symlinkSync('cmdline', join(top, 'proc/cmdline'));
      execFileSync('mkfifo', [join(top, 'proc/cpuinfo')]);
      mkdirSync(join(top, 'boot'));
      writeFileSync(join(top, 'boot/config-7.3.4-test'), gzipSync('CONFIG_VFIO=y'));
      mkdirSync(join(top, 'proc/14'));
      writeFileSync(join(top, 'proc/14/fd'), '');
      mkdirSync(join(top, 'proc/self/status'));
    },
  );
  t.like(kernel(facts), { release: '7.3.4-test', commandLine: [], config: 'unknown', modules: 'unknown' });
  t.deepEqual(facts.limits, { memlock: 'unknown', ipcLock: 'unknown', mappings: 'unknown', mapped: 'unknown' });
  t.like(facts, { virtual: 'unknown', iommuTables: [], openFiles: [] });
  t.is(facts.interrupts.remapped, 'unknown');
  for (const release of ['../../etc', 'six', '']) {
    t.is(read(t, '', `[proc/sys/kernel]\nosrelease = 6.1/${release}`).kernel, 'unknown', release);
  }
  const bomb = gzipSync(Buffer.alloc(64 << 20, 'CONFIG_A=y\n'));
  t.is(kernel(read(t, '', VERSION, (_, top) => writeFileSync(join(top, 'proc/config.gz'), bomb))).config, 'unknown');
});

test('any text in any of the files is read, or is unknown', (t) => {
  const paths = [
    'top/proc/sys/kernel/osrelease',
    'top/proc/cmdline',
    'top/proc/cpuinfo',
    'top/proc/config.gz',
    'top/proc/self/limits',
    'top/proc/self/status',
    'top/proc/self/maps',
    'top/proc/sys/vm/max_map_count',
    'sys/kernel/irq/4/chip_name',
    'sys/kernel/mm/transparent_hugepage/shmem_enabled',
    'sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages',
    'sys/module/vfio_iommu_type1/parameters/dma_entry_limit',
  ];
  const texts = fc.oneof(fc.string(), fc.string({ unit: 'binary' }));
  const property = fc.property(fc.constantFrom(...paths), texts, (path, text) =>
    untilDone((scope) => {
      const facts = read(scope, '', VERSION, (sys, top) => {
        const file = join(path.startsWith('top/') ? top : sys, path.slice(4));
        mkdirSync(join(file, '..'), { recursive: true });
        writeFileSync(file, text);
      });
      return Object.values(facts).every((fact) => fact !== undefined && !Number.isNaN(fact));
    }),
  );
  fc.assert(property, { numRuns: 60 });
  t.pass();
});
