/**
 * A move of a BAR from one instruction of a guest to another, compared with the same guest in QEMU.
 *
 * `bar-moves-in-guest.ts FIRMWARE [DEVICE]` prints a figure as JSON. The device is an ivshmem that is bound to
 * vfio-pci. Without one, it is a simulated device in TypeScript, and QEMU's ivshmem, with no IOMMU.
 */
import { readFileSync } from 'node:fs';
import {
  AddressRange,
  AssignedDevice,
  type GuestMemory,
  PciHostBridge,
  type PhysicalFunction,
  VfioContainerManager,
} from '../ts/index.ts';
import { SimulatedDevice } from '../ts/testing.ts';
import { RAM_LENGTH, loadFirmware } from './firmware.ts';
import { type Figure, formatValues, median } from './measure.ts';
import { runFirmware } from './qemu.ts';

const DEBUG_PORT = 0xe9;
const EXIT_PORT = 0xf4;
/** As `bench/guest/bar-moves.S` has it. */
const ADDRESS = '00:04.0';
const WINDOW: AddressRange = AddressRange.of(0xc000_0000n, 0x2000_0000n);
const PARTS = 4;
/** The number of first moves that are not measured: they compile the code. */
const WARM_UP = 100;
const PAIRS = 3;
const GOAL = 1;

/** The BARs of an ivshmem (QEMU, docs/specs/ivshmem-spec.rst). */
const BARS = [
  { index: 0, length: 0x100n },
  { index: 2, length: 16n << 20n, kind: 'memory64', prefetchable: true },
] as const;

/** A device, and the function that closes what it requires. */
type Opened = readonly [device: PhysicalFunction, close: () => Promise<void>];

async function open(memory: GuestMemory, bdf: string | undefined): Promise<Opened> {
  if (bdf === undefined) return [new SimulatedDevice({ bdf: '0000:00:04.0', bars: BARS }), async () => {}];
  const manager = new VfioContainerManager(memory);
  return [await manager.open(bdf), () => manager.close()];
}

/** The options of QEMU for the same device. */
function deviceOptions(bdf: string | undefined): string[] {
  if (bdf !== undefined) return ['-device', `vfio-pci,host=${bdf},addr=4`];
  return ['-object', 'memory-backend-memfd,id=bar,size=16M,share=on', '-device', 'ivshmem-plain,memdev=bar,addr=4'];
}

async function inTypeScript(firmware: string, bdf: string | undefined): Promise<Uint8Array> {
  const { memory, vm } = await loadFirmware(firmware);
  const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
  vm.attach(bridge);
  const [physical, close] = await open(memory, bdf);
  const device = await AssignedDevice.create({ device: physical, memory });
  bridge.add(ADDRESS, device);
  const printed: number[] = [];
  vm.ports.add(DEBUG_PORT, 1, { read: () => DEBUG_PORT, write: (_port, _width, value) => void printed.push(value) });
  vm.ports.add(EXIT_PORT, 1, { read: () => 0, write: (_port, _width, value) => vm.stop(String(value)) });
  const reason = await vm.run();
  bridge.remove(ADDRESS);
  await device.close();
  await close();
  await vm.close();
  await memory.close();
  if (reason !== '0') throw new Error(`the guest ended with ${reason}`);
  return Uint8Array.from(printed);
}

/** The frequency of the time stamp counter, as the kernel has measured it. */
function tickRate(): number {
  const [, megahertz] = /^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1')) ?? [];
  return Number(megahertz);
}

const TICKS_PER_MICROSECOND = tickRate();

/** The microseconds of each part of each move. */
function movesOf(printed: Uint8Array): number[][] {
  const ticks = new Uint32Array(printed.slice().buffer);
  const moves = Array.from({ length: ticks.length / PARTS }, (_, move) =>
    [...ticks.subarray(move * PARTS, (move + 1) * PARTS)].map((count) => count / TICKS_PER_MICROSECOND),
  );
  return moves.slice(WARM_UP);
}

/** The median of the move, and of each part. */
function mediansOf(moves: readonly number[][]): number[] {
  const total = moves.map(([off = 0, address = 0, on = 0]) => off + address + on);
  const parts = Array.from({ length: PARTS }, (_, part) => median(moves.map((move) => move[part] ?? NaN)));
  return [median(total), ...parts];
}

async function barMoves(firmware: string, bdf: string | undefined): Promise<Figure> {
  const [typescript, qemu]: [number[][], number[][]] = [[], []];
  for (let pair = 0; pair < PAIRS; pair++) {
    qemu.push(...movesOf(runFirmware(firmware, RAM_LENGTH, deviceOptions(bdf))));
    typescript.push(...movesOf(await inTypeScript(firmware, bdf)));
  }
  const [ours, theirs] = [mediansOf(typescript), mediansOf(qemu)];
  const ratio = (ours[0] ?? NaN) / (theirs[0] ?? NaN);
  const values = `${formatValues(ours, 0)} against ${formatValues(theirs, 0)} µs`;
  const device = bdf === undefined ? 'a simulated ivshmem, here' : 'an assigned ivshmem, testbed';
  return {
    name: `move of a BAR by a guest, ${device}: all / decode off / address / decode on; first read. Against QEMU`,
    measured: `${values}: ${ratio.toFixed(2)}×`,
    goal: `≤ ${GOAL.toFixed(1)}×`,
    met: ratio <= GOAL,
  };
}

const [firmware = '', bdf] = process.argv.slice(2);
console.log(JSON.stringify(await barMoves(firmware, bdf)));
