/**
 * `peerdma bind` and `unbind`: rejections, plans, output and exit status, on fixtures of /sys. The test of the kernel's
 * behaviour is __test__/vfio/bind.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { bindCommand, unbindCommand } from '../../ts/cli/bind/command.ts';
import type { MachineRoots } from '../../ts/host/machine.ts';
import { ignoringSignals } from '../../ts/cli/bind/ignore-signals.ts';
import { block, mounts, network, rootsOf } from '../host/use/support.ts';
import { entryOf, program, type Outcome } from './support.ts';

const PCI = `
host 0000:00
  02.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
  03.0 8086:1572 endpoint class=020000 group=2 driver=i40e
  04.0 1b36:0010 endpoint class=010802 group=3 driver=nvme
  05.0 1234:11e8 endpoint class=00ff00 group=4 driver=vfio-pci override=vfio-pci vfio=vfio0
  06.0 1234:11e8 endpoint class=00ff00 group=5 driver=vfio-pci override=vfio-pci vfio=vfio1
  07.0 1234:11e8 endpoint class=00ff00
  1c.0 8086:a110 root-port bus=01-01 group=6 driver=pcieport
    00.0 10de:2330 endpoint class=030000 group=6
    00.1 10de:2331 endpoint class=040300 group=6 driver=snd_hda_intel
  1d.0 8086:1572 endpoint class=020000 group=7 driver=vfio-pci vfs=4
  1d.1 8086:154c endpoint class=020000 group=8 driver=vfio-pci physfn=0000:00:1d.0
`;
const NVME = 'pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1';
const REST =
  block('259:0', NVME) +
  mounts(['259:0', '/', 'ext4', '/dev/nvme0n1']) +
  network('pci0000:00/0000:00:03.0/net/eno1') +
  `[sys/devices/pci0000:00/0000:00:1d.0]
virtfn0 -> ../0000:00:1d.1
[sys/bus/pci/devices/0000:00:05.0]
boot_vga = 1
[sys/bus/pci]
drivers_probe =
[sys/bus/pci/drivers/vfio-pci]
unbind =
bind =
[sys/bus/pci/drivers/nvme]
unbind =
bind =
[proc/44]
comm = qemu-system-x86
fd/20 -> /dev/vfio/5
[proc/45]
comm = vmm
fd/20 -> /dev/vfio/8
[proc/bus/input]
devices = N: Name="Keys"\\nS: Sysfs=/devices/pci0000:00/0000:00:04.0/usb1\\nH: Handlers=kbd
`;

function machine(t: ExecutionContext): MachineRoots {
  return rootsOf(t, {
    pci: PCI,
    rest: REST,
    sshConnection: '192.0.2.7 50412 10.0.0.5 22',
    addresses: { eno1: ['10.0.0.5'] },
  });
}

async function run(roots: MachineRoots, ...args: string[]): Promise<Outcome> {
  return program(args, false, { bind: entryOf(bindCommand(() => roots)), unbind: entryOf(unbindCommand(() => roots)) });
}

test('rejects the root disk and the network of the login with reasons, which --force makes notes', async (t) => {
  const roots = machine(t);
  const refused = await run(roots, 'bind', '--dry-run', '00:02.0', '00:03.0', '00:04.0');
  t.deepEqual(refused, {
    status: 1,
    stdout: '',
    stderr: `peerdma bind: ERR_DEVICE_NEEDED: the host uses these devices:
  - 0000:00:02.0 holds / (nvme0n1)
  - 0000:00:03.0 carries the login to 10.0.0.5 (eno1)
Use --force to change them anyway.
`,
  });
  const forced = await run(roots, 'bind', '--dry-run', '--force', '00:02.0');
  t.is(forced.status, 0);
  t.is(forced.stderr, 'note: 0000:00:02.0 holds / (nvme0n1)\n');
  t.regex(forced.stdout, /^echo 0000:00:02\.0 > \/sys\/bus\/pci\/drivers\/nvme\/unbind$/m);
});

test('--dry-run prints the shell commands, and writes nothing', async (t) => {
  const roots = machine(t);
  const { status, stdout, stderr } = await run(roots, 'bind', '--dry-run', '00:04.0', '00:05.0');
  t.is(status, 0);
  t.is(
    stdout,
    `# 0000:00:05.0 is bound to vfio-pci already
echo vfio-pci > /sys/bus/pci/devices/0000:00:04.0/driver_override
echo 0000:00:04.0 > /sys/bus/pci/drivers/nvme/unbind
echo 0000:00:04.0 > /sys/bus/pci/drivers_probe
`,
  );
  t.is(stderr, 'note: 0000:00:04.0 has the keyboard Keys\n');
  const back = await run(roots, 'unbind', '--dry-run', '00:05.0');
  t.is(
    back.stdout,
    `echo > /sys/bus/pci/devices/0000:00:05.0/driver_override
echo 0000:00:05.0 > /sys/bus/pci/drivers/vfio-pci/unbind
echo 0000:00:05.0 > /sys/bus/pci/drivers_probe
`,
  );
  const variant = await run(roots, 'bind', '--dry-run', '--driver', 'mlx5_vfio_pci', '00:05.0');
  t.regex(variant.stdout, /^modprobe mlx5_vfio_pci\necho mlx5_vfio_pci > .*05\.0\/driver_override\n/);
  t.is(overrideIn(roots, '0000:00:04.0'), '(null)');
  t.is(overrideIn(roots, '0000:00:05.0'), 'vfio-pci');
});

test('--dry-run quotes names with special characters of the shell', async (t) => {
  const roots = machine(t);
  const driver = "o'dd driver; reboot";
  const link = join(roots.sys, 'bus/pci/devices/0000:00:04.0/driver');
  rmSync(link);
  symlinkSync(`drivers/${driver}`, link);
  const { status, stdout } = await run(roots, 'bind', '--dry-run', '00:04.0');
  t.is(status, 0);
  const unbind = "echo 0000:00:04.0 > '/sys/bus/pci/drivers/o'\\''dd driver; reboot/unbind'";
  t.is(stdout.split('\n')[1], unbind);
  const [, redirection = ''] = unbind.split(' > ');
  t.is(spawnSync('sh', ['-c', `printf %s ${redirection}`]).stdout.toString(), `/sys/bus/pci/drivers/${driver}/unbind`);
});

test('--json prints the plan and the result', async (t) => {
  const roots = machine(t);
  const { stdout, stderr } = await run(roots, 'bind', '--dry-run', '--json', '00:04.0', '00:05.0');
  t.is(stderr, '');
  const path = '/sys/bus/pci';
  t.deepEqual(JSON.parse(stdout), {
    module: null,
    devices: [
      { address: '0000:00:05.0', from: 'vfio-pci', to: 'vfio-pci', writes: [] },
      {
        address: '0000:00:04.0',
        from: 'nvme',
        to: 'vfio-pci',
        writes: [
          { path: `${path}/devices/0000:00:04.0/driver_override`, text: 'vfio-pci\n' },
          { path: `${path}/drivers/nvme/unbind`, text: '0000:00:04.0\n' },
          { path: `${path}/drivers_probe`, text: '0000:00:04.0\n' },
        ],
      },
    ],
    notes: ['0000:00:04.0 has the keyboard Keys'],
  });
  const done = await run(roots, 'bind', '--json', '00:05.0');
  t.deepEqual(JSON.parse(done.stdout), {
    module: null,
    devices: [{ address: '0000:00:05.0', from: 'vfio-pci', to: 'vfio-pci' }],
    notes: [],
  });
});

test('succeeds without a change for a device that is bound already', async (t) => {
  const roots = machine(t);
  t.deepEqual(await run(roots, 'bind', '00:05.0'), {
    status: 0,
    stdout: '0000:00:05.0 is bound to vfio-pci already\n',
    stderr: '',
  });
  t.is((await run(roots, 'unbind', '00:02.0')).stdout, '0000:00:02.0 is bound to nvme already\n', 'also the root disk');
  t.is((await run(roots, 'unbind', '--dry-run', '00:05.0')).status, 0, 'the boot display that VFIO has');
  t.is((await run(roots, 'unbind', '01:00.0')).stdout, '0000:01:00.0 has no driver already\n');
});

test('--group leaves ports unchanged, and a partly bound group is noted', async (t) => {
  const roots = machine(t);
  const part = await run(roots, 'bind', '--dry-run', '01:00.0');
  t.is(part.status, 0);
  t.regex(
    part.stderr,
    /^note: IOMMU group 6 cannot be assigned yet, .* 0000:01:00\.1 \(driver snd_hda_intel\): --group/,
  );
  const whole = await run(roots, 'bind', '--dry-run', '--group', '01:00.0');
  t.deepEqual([whole.status, whole.stderr], [0, '']);
  t.deepEqual(
    [...whole.stdout.matchAll(/(\S+)\/driver_override/g)].map(([, path]) => path?.slice(-12)),
    ['0000:01:00.0', '0000:01:00.1'],
  );
});

test('rejects bridges and devices in use, also with --force', async (t) => {
  const roots = machine(t);
  const refused = async (pattern: RegExp, ...args: string[]): Promise<void> => {
    for (const force of [[], ['--force']]) {
      const { status, stdout, stderr } = await run(roots, ...args, ...force);
      t.deepEqual([status, stdout], [1, ''], args.join(' '));
      t.regex(stderr, pattern);
    }
  };
  await refused(/^peerdma bind: ERR_UNSUPPORTED: 0000:00:1c\.0 is a bridge/, 'bind', '00:1c.0');
  await refused(
    /^peerdma bind: ERR_NO_IOMMU_GROUP: 0000:00:07\.0 is in no IOMMU group.*the IOMMU is on/,
    'bind',
    '00:07.0',
  );
  await refused(/^peerdma bind: ERR_DEVICE_NOT_FOUND/, 'bind', '00:09.0');
  await refused(/ERR_DEVICE_IN_USE: 0000:00:06\.0 .* qemu-system-x86 \(process 44\): .*Close it/, 'unbind', '00:06.0');
  await refused(/ERR_DEVICE_IN_USE: 0000:00:06\.0/, 'bind', '--driver', 'mlx5_vfio_pci', '00:06.0');
  await refused(/ERR_DEVICE_IN_USE: 0000:00:1d\.1, a virtual function of 0000:00:1d\.0, .*vmm/, 'unbind', '00:1d.0');
  await refused(/ERR_DEVICE_IN_USE/, 'unbind', '00:05.0', '00:06.0');
  t.is(overrideIn(roots, '0000:00:05.0'), 'vfio-pci', 'all or nothing');
});

test('detects a kernel that does not bind, as these files do not, and rolls back', async (t) => {
  const roots = machine(t);
  const bound = await run(roots, 'bind', '00:04.0');
  t.is(bound.status, 1);
  t.regex(
    bound.stderr,
    /^note: .*\npeerdma bind: ERR_BIND_FAILED: 0000:00:04\.0: binding to vfio-pci failed: nvme has it now/,
  );
  t.regex(bound.stderr, /Restored: 0000:00:04\.0 \(nvme\)\n$/);
});

test('rejects a driver that neither exists nor is a module', async (t) => {
  const { status, stderr } = await run(machine(t), 'bind', '--driver', 'no_such_vfio_pci', '00:04.0');
  t.is(status, 1);
  t.regex(
    stderr,
    /ERR_VFIO_UNAVAILABLE: the driver no_such_vfio_pci is not loaded, and "modprobe no_such_vfio_pci" failed/,
  );
});

test('rejects malformed command lines with status 2', async (t) => {
  const roots = machine(t);
  for (const args of [
    ['bind'],
    ['unbind', '--group'],
    ['bind', '--driver', 'nvme', '00:04.0'],
    ['bind', '--driver', '../vfio', '00:04.0'],
    ['unbind', '--driver', 'vfio-pci', '00:05.0'],
    ['bind', '--sideways', '00:04.0'],
  ]) {
    const { status, stdout, stderr } = await run(roots, ...args);
    t.deepEqual([status, stdout], [2, ''], args.join(' '));
    t.regex(stderr, /Run peerdma \w+ --help for its usage\./);
  }
  t.is((await run(roots, 'bind', 'nvme')).status, 2, 'not a PCI address');
  t.regex((await run(roots, 'bind', '--help')).stdout, /^usage: peerdma bind [^]*--dry-run/);
});

test('ignores signals while it runs, and restores their handlers', (t) => {
  const before = process.listenerCount('SIGINT');
  const result = ignoringSignals(() => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.kill(process.pid, signal);
    return 'done';
  });
  t.is(result, 'done', 'the process still runs');
  t.throws(() => ignoringSignals(() => { throw new Error('failed'); })); // prettier-ignore
  t.is(process.listenerCount('SIGINT'), before);
});

function overrideIn({ sys }: MachineRoots, address: string): string {
  return readFileSync(join(sys, 'bus/pci/devices', address, 'driver_override'), 'utf8').trim();
}
