/**
 * Linux as the guest of the example VMM. It boots, and its programs and drivers use the devices.
 */
import test from 'ava';
import { randomBytes } from 'node:crypto';
import { DISK_REPORT, PIN, SUMMARY, VALUE, copies, disk } from '../../../examples/vmm/testbed/programs.ts';
import { testWith } from '../support/devices.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { type LinuxRun, MARK, runLinux, valuesOf } from './support/linux.ts';

const all = (run: LinuxRun): string => `${run.console}\n${run.errors}`;

/** The lines that {@link copies} prints. */
const COPIED = {
  'RAM -> edu -> RAM': BigInt(VALUE),
  'RAM -> edu -> BAR': BigInt(VALUE),
  'RAM -> edu -> moved BAR': BigInt(VALUE),
  'RAM -> edu -> old address of the BAR': 0n,
};

/** Without `mem=`, which limits RAM that the kernel gets while it starts. */
const HOTPLUG_COMMAND_LINE = 'console=ttyS0 panic=-1 nokaslr tsc=reliable quiet';

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

/** Prints the RAM of Linux in KiB, and waits until it has changed by a number of MiB. */
const RESIZE = String.raw`
total() { awk '/MemTotal/ { print $2 }' /proc/meminfo; }
FIRST=$(total)
# resized MIB: waits for the difference from the first, for up to two minutes
resized() {
  for second in $(seq 120); do [ $(($(total) - FIRST)) = $(($1 * 1024)) ] && break; sleep 1; done
  echo "resized to: $((($(total) - FIRST) / 1024))"
}
echo "step: boot"; read line
echo "step: grow"; read line; resized 128
FREE=$(awk '/MemFree/ { print int($2 / 1024) }' /proc/meminfo)
mkdir /files; mount -t tmpfs -o size=90% tmpfs /files
dd if=/dev/zero of=/files/zeros bs=1M count=$((FREE - 32)) 2>/dev/null
echo "used of the new RAM: $((FREE - 32 - FIRST / 1024))"
dd if=/files/zeros of=/dev/nvme0n1 bs=1M count=16 conv=fsync 2>/dev/null && echo "written to the disk: yes"
rm /files/zeros
echo "step: shrink"; read line; resized 0
echo "step: end"; read line
`;

for (const backend of ['type1', 'iommufd'])
  testWith(
    { nvme: 1 },
    `Linux gets RAM by virtio-mem while it runs, uses it, and returns it (${backend})`,
    async (t, { nvme: [nvme = ''] }) => {
      const pinned: Record<string, number> = {};
      const keys: Readonly<Record<string, string>> = { grow: '\x01+', shrink: '\x01-' };
      const run = await runLinux(t, {
        script: RESIZE,
        options: ['--hotplug', '256M', '--device', nvme, '--backend', backend, '--append', HOTPLUG_COMMAND_LINE],
        onStep: async (name) => {
          pinned[name] = await pinnedAtRest();
          return `${keys[name] ?? ''}\n`;
        },
      });
      t.deepEqual(valuesOf(run, 'resized to'), ['128', '0'], all(run));
      t.true(Number(valuesOf(run, 'used of the new RAM')[0]) > 0, all(run));
      t.deepEqual(valuesOf(run, 'written to the disk'), ['yes'], all(run));
      const { boot = 0, shrink = 0, end = 0 } = pinned;
      t.is(shrink - boot, (128 << 20) / 4096, 'the IOMMU has the new RAM');
      t.is(end, boot, 'the host has its pages back');
      t.is(run.status, 0, all(run));
    },
  );
