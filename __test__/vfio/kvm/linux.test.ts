/**
 * Linux as the guest of the example VMM. It boots, and its programs and drivers use the devices.
 */
import test from 'ava';
import { randomBytes } from 'node:crypto';
import { DISK_REPORT, PIN, SUMMARY, VALUE, copies, disk } from '../../../examples/vmm/testbed/programs.ts';
import { testWith } from '../support/devices.ts';
import { type LinuxRun, MARK, runLinux, valuesOf } from './support/linux.ts';

const all = (run: LinuxRun): string => `${run.console}\n${run.errors}`;

/** The lines that {@link copies} prints. */
const COPIED = {
  'RAM -> edu -> RAM': BigInt(VALUE),
  'RAM -> edu -> BAR': BigInt(VALUE),
  'RAM -> edu -> moved BAR': BigInt(VALUE),
  'RAM -> edu -> old address of the BAR': 0n,
};

function copied(run: LinuxRun): Record<string, bigint> {
  return Object.fromEntries(Object.keys(COPIED).map((label) => [label, BigInt(valuesOf(run, label)[0] ?? -1)]));
}

for (const backend of ['type1', 'iommufd'])
  for (const cpus of ['1', '2'])
    testWith(
      { edu: 1, ivshmem: 1 },
      `Linux boots, and its programs make assigned devices copy into one another (${backend}, processors: ${cpus})`,
      async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
        const options = ['--cpus', cpus, '--backend', backend, '--device', edu, '--device', ivshmem];
        const run = await runLinux(t, { script: SUMMARY + copies('00:01.0', '00:02.0') + PIN, options });
        t.deepEqual(valuesOf(run, 'processors'), [cpus], all(run));
        t.deepEqual(copied(run), COPIED, all(run));
        t.deepEqual(valuesOf(run, 'interrupts of the edu'), ['1'], all(run));
        t.regex(run.errors, /the guest stopped: shutdown/);
        t.is(run.status, 0, all(run));
      },
    );

test.serial('programs in Linux make simulated devices copy as they do real ones', async (t) => {
  const options = ['--simulated', 'edu', '--simulated', 'memory'];
  const run = await runLinux(t, { script: copies('00:01.0', '00:02.0') + PIN, options });
  t.deepEqual(copied(run), COPIED, all(run));
  t.deepEqual(valuesOf(run, 'interrupts of the edu'), ['1'], all(run));
  t.is(run.status, 0, all(run));
});

testWith(
  { nvme: 1 },
  'the NVMe driver of Linux writes and reads 16 MiB on an assigned disk, with no JavaScript for its interrupts',
  async (t, { nvme: [nvme = ''] }) => {
    const script = [MARK, MARK, disk('/contents'), MARK, DISK_REPORT].join('\n');
    const files = { contents: randomBytes(16 << 20) };
    const run = await runLinux(t, { script, files, options: ['--device', nvme] });
    t.deepEqual(valuesOf(run, 'NVMe disk'), ['equal'], all(run));
    t.true(Number(valuesOf(run, 'MSI-X vectors of the disk')[0]) >= 1, all(run));
    const interrupts = Number(valuesOf(run, 'interrupts of the disk')[0]);
    t.true(interrupts >= 32, `${interrupts} interrupts\n${all(run)}`);
    const [first = 0, second = 0, third = 0] = run.events;
    const caused = third - second - (second - first); // each mark has events of its own
    t.true(caused < interrupts / 2, `${interrupts} interrupts, ${caused} events\n${all(run)}`);
    t.is(run.status, 0, all(run));
  },
);
