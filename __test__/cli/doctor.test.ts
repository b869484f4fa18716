/**
 * `peerdma doctor`: its output and its exit status, on copied machines and on this one.
 */
import { existsSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { GPU, MACHINE, NIC, SYS } from '../doctor/support.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { program } from './support.ts';

const sysfs = (t: ExecutionContext, machine: string = MACHINE): string =>
  expandTree(t, `${describeMachine(machine)}\n${SYS}`);

test('prints the findings of a machine and a device in 100 columns, with evidence unless they are ok', async (t) => {
  const root = sysfs(t);
  const { status, stdout, stderr } = await program(['doctor', '--sysfs', root, GPU]);
  t.is(status, 0);
  t.is(stderr, '');
  t.regex(stdout, /^this machine\n {2}unknown {2}the kernel is unknown here\n {11}evidence: /);
  t.regex(stdout, /^ {2}ok {7}the IOMMU is on, with 4 groups$/m);
  t.regex(
    stdout,
    /^0000:01:00\.0 3D controller, 10de:2330 GH100 \[H100 SXM5 80GB\], NVIDIA Corporation\n {2}ok {7}IOMMU group 20, alone$/m,
  );
  t.regex(stdout, /^ {2}warning {2}BAR 4, 256 B at 0x80000000: .*\n(?:.*\n)? {11}evidence: \S+\/resource, line 5$/m);
  t.regex(stdout, /\n\nnothing is blocked; 1 warning; 7 facts are unknown\n$/);
  t.notRegex(stdout, new RegExp(NIC), 'nobody asked for it');
  for (const line of stdout.split('\n')) t.true(line.length <= 100 || line.includes(root), line);
  t.false(stdout.includes('\u001b'), 'no colours where there is no terminal');
});

test('exits with status 1 for a blocked finding, and prints one command to paste', async (t) => {
  const { status, stdout } = await program(['doctor', '--sysfs', sysfs(t), '02:00.0']);
  t.is(status, 1);
  t.regex(stdout, /^ {2}blocked {2}0000:02:00\.0 is in use by the driver mlx5_core: /m);
  t.regex(
    stdout,
    /^ {11}evidence: \S+\/0000:02:00\.0\/driver: mlx5_core\n {11}\$ sudo npx peerdma bind 0000:02:00\.0$/m,
  );
  t.regex(stdout, /^1 finding is blocked; /m);
});

test('prints a long command in one line', async (t) => {
  const root = sysfs(t, MACHINE.replace('16M@0x22000000000', '16M'));
  const { stdout } = await program(['doctor', '--sysfs', root, GPU]);
  t.regex(
    stdout,
    /^ {11}\$ sudo sed -i 's\/\^GRUB_CMDLINE_LINUX="\/&pci=realloc \/' \/etc\/default\/grub && sudo update-grub$/m,
  );
});

test('without devices examines those that are bound to VFIO, and lists the others', async (t) => {
  const { status, stdout } = await program(['doctor', '--sysfs', sysfs(t)]);
  t.is(status, 0);
  t.regex(stdout, /^0000:01:00\.0 3D controller, .*\n {2}ok /m);
  t.regex(
    stdout,
    /^not bound to VFIO: .*\n {2}0000:02:00\.0 network, 15b3:101e ConnectX .*, Mellanox .*:\n {15}driver mlx5_core$/m,
  );
  t.notRegex(stdout, /npx peerdma bind/);
  t.regex(
    stdout,
    /^nothing is blocked; 1 warning; 7 facts are unknown$/m,
    'devices that are not examined are not counted',
  );
});

test('prints the same text with colours on a terminal', async (t) => {
  const root = sysfs(t);
  const plain = await program(['doctor', '--sysfs', root, NIC]);
  const before = { ...process.env };
  t.teardown(() => Object.assign(process.env, before));
  for (const name of ['NO_COLOR', 'NODE_DISABLE_COLORS', 'FORCE_COLOR']) delete process.env[name];
  const coloured = await program(['doctor', '--sysfs', root, NIC], true);
  t.true(coloured.stdout.includes('\u001b[31mblocked'));
  t.is(stripVTControlCharacters(coloured.stdout), plain.stdout);
});

test('prints all findings as JSON, with sizes as strings', async (t) => {
  const { status, stdout } = await program(['doctor', '--sysfs', sysfs(t), '--json', GPU, NIC]);
  t.is(status, 1);
  const json = JSON.parse(stdout) as {
    state: string;
    machine: { id: string; state: string; text: string; evidence: string }[];
    devices: {
      address: string;
      state: string;
      findings: { id: string; code?: string; fix?: string; bar?: unknown }[];
    }[];
  };
  t.is(json.state, 'blocked');
  t.like(
    json.machine.find(({ id }) => id === 'iommu'),
    { state: 'ok', text: 'the IOMMU is on, with 4 groups' },
  );
  const [gpu, nic] = json.devices;
  t.like(gpu, { address: GPU, state: 'warning' });
  t.deepEqual(gpu?.findings.find(({ id }) => id === 'bar')?.bar, {
    index: 0,
    length: '0x1000000',
    mappable: true,
    exportable: 'unknown',
    pageSize: '0x200000',
  });
  t.like(
    nic?.findings.find(({ id }) => id === 'driver'),
    { code: 'ERR_DEVICE_NOT_BOUND', fix: `sudo npx peerdma bind ${NIC}` },
  );
});

test('escapes control characters in names of /sys', async (t) => {
  const root = sysfs(t, MACHINE.replace('driver=mlx5_core', 'driver=\u001b[31mred'));
  for (const devices of [[NIC], []]) {
    const { stdout } = await program(['doctor', '--sysfs', root, ...devices]);
    t.regex(stdout, /driver \?\[31mred/);
    t.false(stdout.includes('\u001b'));
  }
});

test('rejects invalid options, unknown devices and missing folders', async (t) => {
  const root = sysfs(t);
  for (const args of [
    ['--ram', 'much'],
    ['--ram', '0'],
    ['--ram=-1'],
    ['--ram', ''],
    ['--sysfs', ''],
    ['--sysfs', root, '--open'],
    ['--fix'],
  ]) {
    const { status, stdout, stderr } = await program(['doctor', ...args]);
    t.is(status, 2, args.join(' '));
    t.is(stdout, '');
    t.regex(stderr, /^peerdma doctor: .*\nRun peerdma doctor --help for its usage\.\n$/);
  }
  const gone = await program(['doctor', '--sysfs', root, '09:00.0']);
  t.is(gone.status, 1);
  t.regex(gone.stderr, /ERR_DEVICE_NOT_FOUND: there is no PCI device 0000:09:00\.0/);
  t.regex((await program(['doctor', '--sysfs', '/nowhere'])).stderr, /\/nowhere has no bus\/pci\/devices/);
  t.regex(
    (await program(['doctor', '--help'])).stdout,
    /Exit status: 0, also for warnings and unknown facts\. 1 if a finding is blocked/,
  );
});

const here = 'reports a missing VFIO of this machine, and nothing that depends on it';
if (existsSync('/dev/vfio') || !existsSync('/sys/bus/pci/devices')) {
  test.skip(`${here} (needs a machine with PCI devices and without VFIO)`, () => {});
} else {
  test(here, async (t) => {
    const { status, stdout } = await program(['doctor', '--ram', '64M']);
    t.is(status, 1);
    t.regex(stdout, /^ {2}ok {7}the kernel is Linux \d/m);
    t.regex(
      stdout,
      /^ {2}blocked {2}(?:VFIO is not available|this kernel has no VFIO)[^$]*\n {11}\$ sudo (?:modprobe vfio-pci|apt-get install linux-image-amd64)$/m,
    );
    t.notRegex(stdout, /type1|iommufd/, 'no back ends without VFIO');
    t.regex(stdout, /^\d+ findings? (?:is|are) blocked/m);
  });
}
