/**
 * The command line of the example VMM.
 */
import test from 'ava';
import { USAGE, readArguments } from '../../examples/vmm/arguments.ts';
import { UsageError } from '../../ts/cli/command.ts';

test('a kernel is enough, and the rest has defaults', (t) => {
  t.deepEqual(readArguments(['--kernel', 'bzImage']), {
    kernel: 'bzImage',
    initrd: undefined,
    append: 'console=ttyS0',
    memory: 1n << 30n,
    cpus: 1,
    devices: [],
    simulated: [],
    journal: undefined,
  });
});

test('all options describe the guest', (t) => {
  const args = ['--kernel', 'k', '--initrd', 'i', '--append', 'quiet', '--memory', '512M', '--cpus', '255'];
  args.push('--device', '01:00.0', '--device', '0000:02:00.1', '--device', '0000:01:00.0');
  args.push('--simulated', 'memory', '--simulated', 'edu', '--simulated=edu', '--journal', 'j');
  t.deepEqual(readArguments(args), {
    kernel: 'k',
    initrd: 'i',
    append: 'quiet',
    memory: 512n << 20n,
    cpus: 255,
    devices: ['0000:01:00.0', '0000:02:00.1'],
    simulated: ['memory', 'edu', 'edu'],
    journal: 'j',
  });
  t.like(readArguments(['--kernel', 'k', '--append=', '--memory', '3G']), { append: '', memory: 3n << 30n });
});

test('the help needs no kernel', (t) => {
  for (const args of [['--help'], ['-h'], ['--cpus', '2', '--help']]) t.is(readArguments(args), 'help');
});

test('the usage lists each option', (t) => {
  const options = ['kernel', 'initrd', 'append', 'memory', 'cpus', 'device', 'simulated', 'journal', 'help'];
  for (const name of options) t.regex(USAGE, new RegExp(`^  --${name} `, 'm'));
});

const kernel = ['--kernel', 'k'];
const problems: [args: string[], message: string][] = [
  [[], '--kernel is missing: name a bzImage'],
  [['--kernel='], '--kernel takes a name'],
  [[...kernel, '--memory', '512'], '--memory takes a size such as 512M or 2G, not "512"'],
  [[...kernel, '--memory', '0G'], '--memory takes a size such as 512M or 2G, not "0G"'],
  [[...kernel, '--memory', '1.5G'], '--memory takes a size such as 512M or 2G, not "1.5G"'],
  [[...kernel, '--cpus', '0'], '--cpus takes a number from 1 to 255, not "0"'],
  [[...kernel, '--cpus', '256'], '--cpus takes a number from 1 to 255, not "256"'],
  [[...kernel, '--cpus', '1e1'], '--cpus takes a number from 1 to 255, not "1e1"'],
  [[...kernel, '--device', 'edu'], '"edu" is not a PCI address, such as 0000:01:00.0'],
  [[...kernel, '--simulated', 'nvme'], '--simulated takes edu or memory, not "nvme"'],
  [[...kernel, '--quiet'], "Unknown option '--quiet': see npm run vmm -- --help"],
  [['bzImage'], "Unexpected argument 'bzImage': see npm run vmm -- --help"],
  [['--kernel'], "Option '--kernel <value>' argument missing: see npm run vmm -- --help"],
  [['--kernel', '--cpus'], "Option '--kernel' argument is ambiguous: see npm run vmm -- --help"],
];
for (const [args, message] of problems) {
  test(`rejects ${JSON.stringify(args.join(' '))} with a remedy`, (t) => {
    t.throws(() => readArguments(args), { instanceOf: UsageError, message });
  });
}
