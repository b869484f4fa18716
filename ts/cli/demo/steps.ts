/**
 * The eight steps of the demo.
 */
import { AddressRange, GuestMemory, PeerDmaError } from '../../index.ts';
import { RejectingTarget } from './rejecting-target.ts';
import { hex, reportTo } from './report.ts';
import { simulatedStage } from './simulated-stage.ts';
import type { Stage } from './stage.ts';
import { vfioStage } from './vfio-stage.ts';

const MiB = 1n << 20n;
const RAM = [
  { start: 0n, length: 64n * MiB },
  { start: 4096n * MiB, length: 64n * MiB },
];
const FIRST_ADDRESS = 0xe000_0000n;
const SECOND_ADDRESS = 0xd000_0000n;
const REFUSED_ADDRESS = 0xc000_0000n;
const TEXT = new TextEncoder().encode('peer-to-peer!');

/**
 * Runs the demo and prints each step.
 *
 * @param devices PCI addresses of two or three devices that are bound to vfio-pci; none for simulated devices
 */
export async function runDemo(devices: readonly string[], stream: NodeJS.WritableStream): Promise<void> {
  const { step, note, mappingTable } = reportTo(stream);
  await using memory = await GuestMemory.create({ ram: RAM });
  step('guest RAM', RAM.map(({ start, length }) => `${hex(start)}..${hex(start + length)}`).join(' and '));

  await using stage: Stage = devices.length === 0 ? simulatedStage(memory) : vfioStage(memory, devices);
  const { a, b } = await stage.start();
  step(`${a.name} joins`, 'all RAM is mapped into its IOMMU');

  await a.write(0x10_0000n, TEXT);
  step(`${a.name} writes to RAM by DMA`, `${hex(0x10_0000n)} now has ${show(memory.read(0x10_0000n, TEXT.length))}`);

  await using bar = memory.newDeviceMemory({ name: `BAR of ${b.name}`, length: b.length });
  await bar.addMapping({ range: AddressRange.of(0n, b.length), backing: b.backing });
  await bar.mapToGuest(FIRST_ADDRESS);
  await a.write(FIRST_ADDRESS, TEXT);
  step(
    `${b.name}'s BAR appears at ${hex(FIRST_ADDRESS)}`,
    `${a.name} writes to it by DMA: the BAR has ${show(b.read(TEXT.length))}`,
  );

  await bar.mapToGuest(SECOND_ADDRESS);
  b.clear(TEXT.length);
  const reached = await a.tryWrite(FIRST_ADDRESS, TEXT);
  step(
    `the BAR moves to ${hex(SECOND_ADDRESS)}`,
    `DMA to the old address: ${reached ?? 'went through'}; the BAR has ${show(b.read(TEXT.length))}`,
  );
  await a.write(SECOND_ADDRESS, TEXT);
  note(`DMA to the new address: the BAR has ${show(b.read(TEXT.length))}`);

  const late = await stage.join();
  step(`${late.name} joins late`, `everything is replayed into it: ${late.mapped().join(', ')}`);
  b.clear(TEXT.length);
  if (late.device === undefined) {
    note('a third --device would do DMA through it');
  } else {
    await late.device.write(SECOND_ADDRESS, TEXT);
    note(`${late.device.name} writes to ${b.name}'s BAR by DMA: it has ${show(b.read(TEXT.length))}`);
  }

  const rejecting = new RejectingTarget(REFUSED_ADDRESS);
  await memory.dmaMappers.addDmaMapper(rejecting, { peerToPeer: 'required' });
  step(`${rejecting.name} joins`, `a target of our own; it will refuse ${hex(REFUSED_ADDRESS)}`);
  try {
    await bar.mapToGuest(REFUSED_ADDRESS);
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    step('moving the BAR there fails', `${error.code}: ${error.message}`);
  }
  b.clear(TEXT.length);
  await a.write(SECOND_ADDRESS, TEXT);
  note(
    `rolled back everywhere: ${a.name} still reaches the BAR at ${hex(SECOND_ADDRESS)}: ${show(b.read(TEXT.length))}`,
  );

  mappingTable(memory.inspect());
}

function show(bytes: Uint8Array): string {
  return JSON.stringify(new TextDecoder().decode(bytes).replaceAll('\0', '.'));
}
