/**
 * Damaged /sys: truncated files, loops, garbage. Each becomes a finding, and the host stays usable.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { type HostMachine, bridgesAbove, peerMatrix, readHost } from '../../ts/host.ts';
import { damage, damaged, untilDone } from '../support/sysfs/damage.ts';
import { expandTree, machine } from '../support/sysfs/expand.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { at } from './support.ts';

const DEVICES = 'bus/pci/devices';
const ONE = `${DEVICES}/0000:00:04.0`;

/** One device whose files are these lines. */
function device(t: ExecutionContext, ...lines: string[]): HostMachine {
  return readHost(expandTree(t, [`[${ONE}]`, 'vendor = 0x8086', ...lines].join('\n')));
}

/** Problems by path, of a host that a matrix can be made of. */
function problems(t: ExecutionContext, host: HostMachine): string[] {
  t.notThrows(() => peerMatrix(host, [...host.functions.keys()]));
  return host.findings.map(({ path, problem }) => `${path.replace(`${ONE}/`, '')} ${problem}`);
}

test('reports invalid and too large numbers', (t) => {
  const host = device(
    t,
    'class = lots',
    'device = 0x10000',
    'numa_node = -7',
    'sriov_totalvfs = 1e99',
    'current_link_width = x',
  );
  t.deepEqual(problems(t, host), [
    'class holds "lots", which is not a number up to 16777215',
    'device holds "0x10000", which is not a number up to 65535',
    'current_link_width holds "x", which is not a number up to 255',
    'sriov_totalvfs holds "1e99", which is not a number up to 65535',
    'numa_node holds "-7", which is not a number up to 65535',
  ]);
  t.is(at(host, '00:04.0').classCode, 'unknown');
  t.is(at(host, '00:04.0').ids.device, 'unknown');
});

test('reports truncated and reversed resources', (t) => {
  const host = device(
    t,
    'resource = 0xfe000000 0xfe0fffff 0x200\\n0x2000 0x1000 0x200\\n0xfe10\\nnothing at all\\n0x0 0xffffffffffffffff 0x200',
  );
  t.deepEqual(problems(t, host), [
    'resource line 2 ends (0x1000) before it begins (0x2000)',
    'resource line 3 is "0x0000000000000fe10", not two addresses and flags'.replace(
      '0x0000000000000fe10',
      '0x000000000000fe10',
    ),
    'resource line 4 is "nothing at all", not two addresses and flags',
  ]);
  t.deepEqual(
    at(host, '00:04.0').bars.map(({ index, length }) => [index, length]),
    [
      [0, 0x100000n],
      [4, 1n << 64n],
    ],
  );
});

test('reports truncated, empty and silent config space, and chains with a loop', (t) => {
  t.deepEqual(problems(t, device(t, 'config : 0')), ['config has 0 bytes, fewer than a header']);
  t.deepEqual(problems(t, device(t, 'config : 40 0:86801110')), ['config has 40 bytes, fewer than a header']);
  const odd = device(t, 'config : 1000 0:86801110');
  t.deepEqual(problems(t, odd), ['config has 1000 bytes: only the first 256 are used']);
  t.is(at(odd, '00:04.0').portType, 'conventional');
  const silent = device(t, `config : 64 0:${'ff'.repeat(64)}`);
  t.deepEqual(problems(t, silent), ['config reads as all ones: the device does not respond']);
  const loop = device(t, 'config : 256 0:86801110 6:10 34:40 40:0140');
  t.regex(
    problems(t, loop)[0] ?? '',
    /^config config space of 0000:00:04\.0 is invalid at 0x41: .*which the chain has visited already/,
  );
  t.is(at(loop, '00:04.0').acs, 'unknown');
  const far = device(t, 'config : 4096 0:86801110 6:10 34:40 40:1000 42:6200 100:0d000102');
  t.regex(problems(t, far)[0] ?? '', /is invalid at 0x102/);
  const last = device(t, 'config : 4096 0:86801110 6:10 34:40 40:1000 42:6200 100:0100c1ff ffc:0d000100');
  t.regex(problems(t, last)[0] ?? '', /is invalid at 0xffc: a capability passes the end/);
  const short = device(t, 'config : 256 0:86801110 6:10 34:fc fc:10');
  t.deepEqual(problems(t, short), []);
  t.is(at(short, '00:04.0').portType, 'endpoint', 'the last four bytes have its flags');
});

test('reports links with invalid targets', (t) => {
  const host = device(
    t,
    'iommu_group -> ../../../kernel/iommu_groups/all',
    'driver -> ../../../bus/pci/drivers/gone',
    'physfn -> ../0000:00:04',
    'iommu -> /',
    'virtfn0 -> elsewhere',
    'sriov_totalvfs = 4',
  );
  t.deepEqual(problems(t, host), [
    'iommu_group links to "all", which is not a group number',
    'physfn links to "0000:00:04", which is not a PCI address',
    'virtfn0 links to "elsewhere", which is not a PCI address',
  ]);
  t.is(at(host, '00:04.0').driver, 'gone');
});

test('reports functions with an invalid parent', (t) => {
  const lines = [
    `[${DEVICES}]`,
    '0000:01:00.0 -> ../../../devices/pci0000:00/0000:02:00.0/0000:01:00.0',
    '0000:02:00.0 -> ../../../devices/pci0000:00/0000:01:00.0/0000:02:00.0',
    '0000:03:00.0 -> ../../../devices/pci0000:00/0000:03:00.0/0000:03:00.0',
    '0000:04:00.0 -> ../../../devices/pci0000:00/0000:09:00.0/0000:04:00.0',
    '0000:05:00.0 -> ../../../../../../etc',
    'lost+found/',
  ];
  const host = readHost(expandTree(t, lines.join('\n')));
  const found = problems(t, host).join('\n');
  t.is(host.functions.size, 5);
  t.regex(found, /0000:01:00\.0 is behind itself, through 0000:01:00\.0|0000:02:00\.0 is behind itself/);
  t.regex(found, /0000:03:00\.0 links to .*which is not a place/);
  t.regex(found, /0000:04:00\.0 is behind 0000:09:00\.0, which does not exist/);
  t.regex(found, /0000:05:00\.0 links to ".*etc"/);
  t.regex(found, /lost\+found is not a PCI address/);
  for (const each of host.functions.values()) t.true(bridgesAbove(host, each).length < 5);
});

test('breaks loops of bus numbers', (t) => {
  const bridge = (address: string, secondary: string) => [
    `[${DEVICES}/${address}]`,
    'class = 0x060400',
    `config : 64 0:86801110 e:01 19:${secondary}${secondary}`,
  ];
  const host = readHost(expandTree(t, [...bridge('0000:01:00.0', '02'), ...bridge('0000:02:00.0', '01')].join('\n')));
  t.regex(problems(t, host).join('\n'), /behind itself/);
  t.true(host.rootBuses.some(({ children }) => children.length > 0));
});

test('reports invalid groups and IOMMUs', (t) => {
  const host = readHost(
    expandTree(
      t,
      `
[${DEVICES}/0000:00:04.0]
iommu_group -> ../../../kernel/iommu_groups/3
[kernel/iommu_groups/3]
devices/0000:00:05.0/
reserved_regions = 0xfee00000 0xfeefffff msi\\nall of them\\n0x2000 0x1000 direct
[kernel/iommu_groups/three]
type = DMA
[class/iommu/dmar0]
intel-iommu/cap = none
intel-iommu/ecap = 0
[class/iommu/dmar1]
intel-iommu/cap = 0
`,
    ),
  );
  t.deepEqual(problems(t, host), [
    'kernel/iommu_groups/3/reserved_regions has "all of them", which is not a range',
    'kernel/iommu_groups/3/reserved_regions has "0x2000 0x1000 direct", which is not a range',
    'kernel/iommu_groups/three is not a group number',
    'iommu_group is group 3, which does not list the device',
    'class/iommu/dmar0/intel-iommu/cap holds "none", which is not a register value',
  ]);
  t.deepEqual(host.groups.get(3)?.members, ['0000:00:04.0', '0000:00:05.0']);
  t.is(host.iommus.get('dmar1')?.addressBits, 'unknown');
});

test('reads folders, pipes and endless files without blocking', (t) => {
  const root = expandTree(t, `[${ONE}]\nvendor = 0x8086\nconfig/\nclass/`);
  execFileSync('mkfifo', [join(root, ONE, 'resource')]);
  symlinkSync('/dev/zero', join(root, ONE, 'device'));
  symlinkSync('numa_node', join(root, ONE, 'numa_node'));
  writeFileSync(join(root, ONE, 'revision'), '0'.repeat(1 << 20));
  const host = readHost(root);
  const found = problems(t, host);
  for (const name of ['config', 'class', 'resource', 'device']) t.true(found.includes(`${name} is not a file`), name);
  t.true(found.includes('numa_node cannot be read: ELOOP'));
  t.true(found.some((each) => each.startsWith('revision holds "0000')));
});

test('reports folders in place of files, and files in place of folders', (t) => {
  const root = expandTree(t, `[${ONE}]\nvendor = 0x8086\niommu_group/\ndriver = x\nvfio-dev = x`);
  mkdirSync(join(root, 'kernel'));
  writeFileSync(join(root, 'kernel/iommu_groups'), '');
  t.deepEqual(problems(t, readHost(root)), [
    'vfio-dev cannot be listed: ENOTDIR',
    'kernel/iommu_groups cannot be listed: ENOTDIR',
  ]);
});

test('removes control characters from names', (t) => {
  const host = device(t, 'driver_override = \u001b[31mred\u0007', 'power_state = \u001b[2J');
  t.is(at(host, '00:04.0').driverOverride, '[31mred');
  t.is(at(host, '00:04.0').powerState, 'unknown');
});

const TEXTS = {
  testbed: machine('testbed'),
  'gpu-server': describeMachine(machine('gpu-server')),
  'amd-desktop': describeMachine(machine('amd-desktop')),
};

test('reads a machine with any line removed and any character changed', (t) => {
  const names = fc.constantFrom(...(Object.keys(TEXTS) as (keyof typeof TEXTS)[]));
  const property = fc.property(names, damage, (name, harm) =>
    untilDone((scope) => {
      const host = readHost(expandTree(scope, damaged(TEXTS[name], harm)));
      const { cells } = peerMatrix(host, [...host.functions.keys()].slice(0, 12));
      return cells.every(({ reasons }) => reasons.length > 0);
    }),
  );
  fc.assert(property, { numRuns: 40 });
  t.pass();
});
