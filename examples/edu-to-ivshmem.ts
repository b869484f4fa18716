/**
 * Peer-to-peer DMA: one assigned device of a guest writes into the memory of another one.
 *
 * The program acts as the guest: its firmware, which scans the bus and places the devices' BARs through config space,
 * and the driver of the device that does DMA. It makes the accesses that a hypervisor passes to the host bridge.
 * Without arguments the devices are simulated. Two PCI addresses name physical ones that are bound to vfio-pci, an edu
 * and an ivshmem of QEMU:
 *
 *     node --import=./scripts/typescript/register.mjs examples/edu-to-ivshmem.ts [0000:00:04.0 0000:00:06.0]
 */
import { AddressRange, AssignedDevice, GuestMemory, PciHostBridge } from 'peerdma';
import { hex, reportTo } from './support/report.ts';
import { EduDriver } from './devices/edu.ts';
import { simulatedPair, vfioPair } from './edu-to-ivshmem/devices.ts';
import { GuestBar } from './guest/bar.ts';
import { Firmware } from './guest/firmware.ts';
import { scanBus } from './guest/pci-bus.ts';

const MiB = 1n << 20n;
const RAM = { start: 0n, length: 64n * MiB };
/** The buffers of the guest's driver. */
const SOURCE = 0x10_0000n;
const SINK = 0x20_0000n;
/** The windows for BARs: below 4 GiB, and above, where one of them moves. */
const FIRST_WINDOW = AddressRange.of(0xe000_0000n, 256n * MiB);
const OTHER_WINDOW = AddressRange.of(0x1_0000_0000n, 256n * MiB);
const OTHER_ADDRESS = OTHER_WINDOW.start;
/** The peer's BAR that is memory. */
const BAR = 2;
/** The length of each text that is sent. */
const LETTERS = 5;

const { step, note } = reportTo(process.stdout);

const addresses = process.argv.slice(2);
await using memory = await GuestMemory.create({ ram: [RAM] });
await using pair = addresses.length === 0 ? await simulatedPair(memory) : await vfioPair(memory, addresses);
await using edu = await AssignedDevice.create({ device: pair.edu, memory });
await using peer = await AssignedDevice.create({ device: pair.peer, memory });

// The VMM: gives the devices their addresses in the guest.
const bridge = new PciHostBridge({ memory, windows: [FIRST_WINDOW, OTHER_WINDOW] });
bridge.add('00:01.0', edu);
bridge.add('00:02.0', peer);

// Firmware: finds the functions and sizes the BARs. It writes all ones to their registers and reads the size.
const [eduFunction, peerFunction] = scanBus(bridge);
if (eduFunction === undefined || peerFunction === undefined) throw new Error('the bus does not have two functions');
const eduFirmware = await Firmware.probe(eduFunction);
const peerFirmware = await Firmware.probe(peerFunction);
step('firmware sizes the BARs', `${list(edu, eduFirmware)}; ${list(peer, peerFirmware)}`);

// Firmware: places the BARs. Until memory decode is on, they are not mapped.
await peerFirmware.placeAll(await eduFirmware.placeAll(FIRST_WINDOW.start));
const [registers, before] = [eduFirmware.addressOf(0), peerFirmware.addressOf(BAR)];
await eduFirmware.enable();
await peerFirmware.enable();
step('it places them and switches the devices on', `edu's registers are at ${hex(registers)}`);
note(`the peer's BAR ${BAR} is at ${hex(before)}, in guest memory and in the IOMMU: ${inReach()}`);

// The driver: from here on edu does DMA to guest addresses.
const driver = new EduDriver(new GuestBar(eduFunction, registers));
const happened: Record<string, string>[] = [];

await send('first', before);
step(`edu writes to ${hex(before)}`, `the peer's BAR has ${show(await readBack(before))}`);

await peerFirmware.place(BAR, OTHER_ADDRESS);
step(`the guest moves the BAR to ${hex(OTHER_ADDRESS)}`, `its bytes are ${show(await readBack(OTHER_ADDRESS))}`);
await send('stale', before);
step(`edu writes to ${hex(before)}, where it was`, `the peer's BAR has ${show(await readBack(OTHER_ADDRESS))}`);
await send('moved', OTHER_ADDRESS);
step(`edu writes to ${hex(OTHER_ADDRESS)}`, `the peer's BAR has ${show(await readBack(OTHER_ADDRESS))}`);

await peerFirmware.disable();
await send('never', OTHER_ADDRESS);
await peerFirmware.enable();
step(
  'the guest switches the peer off, edu writes, it is on again',
  `the BAR has ${show(await readBack(OTHER_ADDRESS))}`,
);

console.log('\nWhat was sent, and what arrived:');
console.table(happened);

/** Sends bytes of RAM to an address by DMA of edu. */
async function send(text: string, gpa: bigint): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  memory.write(SOURCE, bytes);
  await driver.copy(SOURCE, gpa, bytes.length);
  happened.push({ sent: text, to: hex(gpa), 'BAR then': address() });
}

/** Fetches bytes from an address to RAM by DMA of edu. */
async function readBack(gpa: bigint): Promise<string> {
  memory.write(SINK, new Uint8Array(LETTERS));
  await driver.copy(gpa, SINK, LETTERS);
  const text = new TextDecoder().decode(memory.read(SINK, LETTERS)).replaceAll('\0', '.');
  const last = happened.at(-1);
  if (last !== undefined) last['BAR has'] = text;
  return text;
}

/** The targets whose devices reach the BAR now. */
function address(): string {
  return (
    peer
      .status()
      .find(({ bar }) => bar === BAR)
      ?.range?.toString() ?? 'off'
  );
}

function inReach(): string {
  const missed = peer.status().flatMap(({ unreachable }) => unreachable);
  return missed.length === 0 ? 'all of it' : missed.map(({ target, reason }) => `not of ${target}: ${reason}`).join();
}

function list({ bdf }: AssignedDevice, { bars }: Firmware): string {
  return `${bdf} has ${bars.map(({ index, length }) => `BAR ${index} of ${hex(length)} bytes`).join(' and ')}`;
}

function show(text: string): string {
  return JSON.stringify(text);
}
