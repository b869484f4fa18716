/**
 * A driver in user space. QEMU's educational device computes a factorial, interrupts, and moves bytes by DMA.
 *
 * Without an argument the device is simulated. A PCI address names a physical one that is bound to vfio-pci:
 *
 *     node --import=./scripts/typescript/register.mjs examples/edu-factorial.ts [0000:00:04.0]
 */
import { setImmediate as turn } from 'node:timers/promises';
import { EventFd, GuestMemory } from 'peerdma';
import { DmaBuffer, registers, u32, u64 } from 'peerdma/driver';
import { openEdu } from './edu-factorial/open.ts';

await using memory = await GuestMemory.create(); // only for the driver: no guest, no RAM
await using edu = await openEdu(memory, process.argv[2]);
const { config, interrupts, regions } = edu.device;
if (regions[0] === undefined) throw new Error('an edu has BAR 0');
config.write(4n, Uint8Array.of(0x06, 0)); // memory decode, bus mastering
// QEMU, docs/specs/edu.rst
const bar = registers(regions[0], {
  factorial: u32(0x08n), // write a number, read its factorial
  status: u32(0x20n), // bit 7: interrupt when done
  acknowledge: u32(0x64n),
  source: u64(0x80n),
  destination: u64(0x88n),
  count: u64(0x90n),
  command: u64(0x98n), // bit 0: start, and busy; bit 1: from the device's own buffer, which is at 0x40000
});

using done = EventFd.create();
interrupts.connect('msi', [done]);
bar.status = 0x80;
bar.factorial = 10;
await done.wait();
bar.acknowledge = 1;
console.log(`10! = ${bar.factorial}`);

await using buffer = await DmaBuffer.allocate(memory, 64n);
buffer.bytes.set(new TextEncoder().encode('there and back'));
await move(buffer.iova, 0x40000n, 1n);
await move(0x40000n, buffer.iova + 32n, 3n);
console.log(`by DMA: ${new TextDecoder().decode(buffer.bytes.subarray(32, 46))}`);

async function move(source: bigint, destination: bigint, command: bigint): Promise<void> {
  Object.assign(bar, { source, destination, count: 14n, command });
  while ((bar.command & 1n) !== 0n) await turn();
}
