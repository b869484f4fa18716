/**
 * The command line of the example VMM.
 */
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { WINDOWS, ramRanges } from '../../examples/vmm/address-map.ts';
import { USAGE, readArguments } from '../../examples/vmm/arguments.ts';
import { UsageError } from '../../examples/vmm/failures.ts';

test('a kernel is enough, and the rest has defaults', (t) => {
  t.deepEqual(readArguments(['--kernel', 'bzImage']), {
    kernel: 'bzImage',
    initrd: undefined,
    append: 'console=ttyS0',
    memory: 1n << 30n,
    hotplug: undefined,
    cpus: 1,
    devices: [],
    simulated: [],
    backend: 'auto',
    journal: undefined,
  });
});

test('all options describe the guest', (t) => {
  const args = [
    '--kernel',
    'k',
    '--initrd',
    'i',
    '--append',
    'quiet',
    '--memory',
    '512M',
    '--hotplug',
    '256M',
    '--cpus',
    '255',
  ];
  args.push('--device', '01:00.0,clique=15', '--device', '0000:02:00.1', '--device', '0000:02:00.1');
  args.push('--simulated', 'memory', '--simulated', 'edu', '--simulated=edu', '--journal', 'j', '--backend', 'type1');
  t.deepEqual(readArguments(args), {
    kernel: 'k',
    initrd: 'i',
    append: 'quiet',
    memory: 512n << 20n,
    hotplug: AddressRange.of(4n << 30n, 256n << 20n),
    cpus: 255,
    devices: [{ bdf: '0000:01:00.0', clique: 15 }, { bdf: '0000:02:00.1' }],
    simulated: ['memory', 'edu', 'edu'],
    backend: 'type1',
    journal: 'j',
  });
  t.like(readArguments(['--kernel', 'k', '--append=', '--memory', '3G']), { append: '', memory: 3n << 30n });
});

test('the help needs no kernel', (t) => {
  for (const args of [['--help'], ['-h'], ['--cpus', '2', '--help']]) t.is(readArguments(args), 'help');
});

test('the usage lists each option', (t) => {
  const options = ['kernel', 'initrd', 'append', 'memory', 'hotplug', 'cpus', 'device', 'simulated', 'backend'];
  options.push('journal', 'testbed', 'help');
  for (const name of options) t.regex(USAGE, new RegExp(`^  --${name} `, 'm'));
});

const kernel = ['--kernel', 'k'];
const size = '--memory takes a size such as 512M or 2G, up to 255G, not';
const problems: [args: string[], message: string][] = [
  [[], '--kernel is missing. Name a bzImage'],
  [['--kernel='], '--kernel takes the path of a file, not ""'],
  [[...kernel, '--initrd='], '--initrd takes the path of a file, not ""'],
  [[...kernel, '--backend', 'vfio'], '--backend takes auto, type1, or iommufd, not "vfio"'],
  [
    [...kernel, '--device', '01:00.0,clique=16'],
    '--device takes 01:00.0,clique=NUMBER from 0 to 15, not "01:00.0,clique=16"',
  ],
  [
    [...kernel, '--device', '01:00.0,clique=1', '--device', '0000:01:00.0'],
    '--device names 0000:01:00.0 twice, with different options. Name it once',
  ],
  [
    [...kernel, '--device', '01:00.0,clique=1,'],
    '--device takes 01:00.0,clique=NUMBER from 0 to 15, not "01:00.0,clique=1,"',
  ],
  [[...kernel, '--testbed'], '--testbed has no other option. Run npm run vmm -- --testbed'],
  [[...kernel, '--journal='], '--journal takes the path of a file, not ""'],
  [[...kernel, '--hotplug', '64M'], '--hotplug takes a multiple of 128M, not 64M'],
  [
    [...kernel, '--memory', '128G', '--hotplug', '128G'],
    '--memory and --hotplug exceed the 255G below the devices. Give the guest less',
  ],
  [[...kernel, '--memory', '512'], `${size} "512"`],
  [[...kernel, '--memory', '0G'], `${size} "0G"`],
  [[...kernel, '--memory', '1.5G'], `${size} "1.5G"`],
  [[...kernel, '--memory', '256G'], `${size} "256G"`],
  [[...kernel, '--cpus', '0'], '--cpus takes a number from 1 to 255, not "0"'],
  [[...kernel, '--cpus', '256'], '--cpus takes a number from 1 to 255, not "256"'],
  [[...kernel, '--cpus', '1e1'], '--cpus takes a number from 1 to 255, not "1e1"'],
  [[...kernel, '--device', 'edu'], '--device takes a PCI address such as 0000:01:00.0, not "edu"'],
  [[...kernel, '--simulated', 'nvme'], '--simulated takes edu or memory, not "nvme"'],
  [[...kernel, '--quiet'], "Unknown option '--quiet'. See npm run vmm -- --help"],
  [['bzImage'], "Unexpected argument 'bzImage'. See npm run vmm -- --help"],
  [['--kernel'], "Option '--kernel <value>' argument missing. See npm run vmm -- --help"],
  [['--kernel', '--cpus'], "Option '--kernel' argument is ambiguous. See npm run vmm -- --help"],
];
for (const [args, message] of problems) {
  test(`rejects ${JSON.stringify(args.join(' '))} with a remedy`, (t) => {
    t.throws(() => readArguments(args), { instanceOf: UsageError, message });
  });
}

test('accepts 30 devices, one fewer than the bus has numbers, and rejects one more', (t) => {
  const args = [...kernel, '--device', '01:00.0', ...Array.from({ length: 29 }, () => '--simulated=edu')];
  t.notThrows(() => readArguments(args));
  const message = '--device and --simulated take up to 30 devices. Give the guest fewer';
  t.throws(() => readArguments([...args, '--simulated=edu']), { instanceOf: UsageError, message });
});

test('accepts RAM up to the window for BARs of 64 bits', (t) => {
  t.like(readArguments([...kernel, '--memory', '255G']), { memory: 255n << 30n });
  t.is(ramRanges(255n << 30n).at(-1)?.end, WINDOWS.at(-1)?.start);
});
