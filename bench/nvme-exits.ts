/**
 * Exits to JavaScript while Linux reads an assigned NVMe.
 *
 * `nvme-exits.ts DEVICE` prints a figure as JSON. `PEERDMA_TESTBED_IMAGE` names the kernel.
 */
import { readFileSync } from 'node:fs';
import { packInitramfs } from '../examples/vmm/testbed/initramfs.ts';
import { hex } from '../ts/address-range.ts';
import { type Exits, MARK, runLinuxGuest } from './linux-guest.ts';
import type { Figure } from './measure.ts';

const MIB = 16;
const SCRIPT = `
reads() { awk '{ print $1 }' /sys/block/nvme0n1/stat; }
before=$(reads)
devmem ${hex(MARK.start)} 32 1
dd if=/dev/nvme0n1 of=/dev/null bs=1M count=${MIB} iflag=direct 2>/dev/null
devmem ${hex(MARK.start)} 32 2
echo "reads=$(($(reads) - before))"
echo "interrupts=$(grep 'nvme0q1' /proc/interrupts | awk '{ print $2 }')"
`;

async function nvmeExits(bdf: string): Promise<Figure> {
  let console = '';
  const counts: Exits[] = [];
  const reason = await runLinuxGuest({
    kernel: readFileSync(process.env['PEERDMA_TESTBED_IMAGE'] ?? ''),
    initrd: packInitramfs({ script: SCRIPT }),
    devices: [bdf],
    printed: (text) => (console += text),
    marked: (_value, exits) => void counts.push(exits),
  });
  const [before, after] = counts;
  const numberOf = (name: string): number => Number(new RegExp(`^${name}=(\\d+)`, 'm').exec(console)?.[1]);
  const reads = numberOf('reads');
  if (before === undefined || after === undefined || !(reads > 0)) throw new Error(`the guest: ${reason}\n${console}`);
  const exits = after.port - before.port + (after.memory - before.memory) - 1; // the last one is the mark
  return {
    name: `exits to JavaScript while Linux reads ${MIB} MiB of an assigned NVMe`,
    measured: `${exits} in ${reads} reads, ${numberOf('interrupts')} interrupts since the start`,
    goal: '0',
    met: exits === 0,
  };
}

const [bdf = ''] = process.argv.slice(2);
console.log(JSON.stringify(await nvmeExits(bdf)));
