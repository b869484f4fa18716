/**
 * A driver in user space: QEMU's teaching device computes a factorial and interrupts, and moves bytes by DMA. Without an
 * argument the device is simulated; a PCI address names a real one that is bound to vfio-pci:
 *
 *     node --import=./scripts/typescript/register.mjs examples/edu-factorial.ts [0000:00:04.0]
 */
import { setImmediate as turn } from 'node:timers/promises';
import { DmaBuffer, EventFd, GuestMemory, registers, u32, u64 } from '../ts/index.ts';
import { openEdu } from './edu-factorial/open.ts';

await using memory = await GuestMemory.create(); // a driver's own: no guest, no RAM
await using edu = await openEdu(memory, process.argv[2]);
const { config, interrupts, regions } = edu.device;
if (regions[0] === undefined) throw new Error('an edu has BAR 0');
config.write(4n, Uint8Array.of(0x06, 0)); // memory decode, bus mastering
// QEMU, docs/specs/edu.rst
const bar = registers(regions[0], {
  factorial: u32(0x08), // write a number, read what has become of it
  status: u32(0x20), // bit 7: interrupt when done
  acknowledge: u32(0x64),
  source: u64(0x80),
  destination: u64(0x88),
  count: u64(0x90),
  command: u64(0x98), // bit 0: start, and at work; bit 1: from the device's own buffer, which is at 0x40000
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
