/**
 * Runs Linux with devices of the testbed: `npm run vmm -- --testbed` starts this program there.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runGuest } from '../machine.ts';
import { packInitramfs } from './initramfs.ts';
import { COMMAND_LINE, DISK_REPORT, MEMORY, PIN, SUMMARY, copies, disk } from './programs.ts';

/** A variable of the testbed: the kernel's file, or the address of a device. */
const variable = (name: string): string => process.env[`PEERDMA_TESTBED_${name}`] ?? '';
const DISK_LENGTH = 16 << 20;

const SCRIPT = `
${SUMMARY}
echo; echo "Two assigned devices, an edu and an ivshmem:"
${copies('00:01.0', '00:02.0')}
${PIN}
echo; echo "An assigned NVMe disk, by the driver of Linux:"
${disk('/contents')}
${DISK_REPORT}
echo; echo "Two simulated devices, which need no IOMMU:"
${copies('00:04.0', '00:05.0')}
${PIN}
`;

const folder = mkdtempSync(join(tmpdir(), 'vmm-'));
try {
  const initrd = join(folder, 'initrd');
  const files = { contents: randomBytes(DISK_LENGTH) };
  writeFileSync(initrd, packInitramfs({ script: SCRIPT, files }));
  const reason = await runGuest({
    kernel: variable('IMAGE'),
    initrd,
    append: COMMAND_LINE,
    memory: MEMORY,
    hotplug: undefined,
    cpus: 2,
    devices: [{ bdf: variable('EDU0') }, { bdf: variable('IVSHMEM0') }, { bdf: variable('NVME0') }],
    simulated: ['edu', 'memory'],
    backend: 'auto',
    journal: undefined,
  });
  console.log(`\nThe guest stopped: ${reason}`);
} finally {
  rmSync(folder, { recursive: true });
}
