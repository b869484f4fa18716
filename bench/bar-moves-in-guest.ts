/**
 * A move of a BAR from one instruction of a guest to another, compared with the same guest in QEMU.
 *
 * `bar-moves-in-guest.ts DEVICE FIRMWARE` prints figures as JSON. The device is an ivshmem that is bound to vfio-pci.
 */
import { readFileSync } from 'node:fs';
import { AddressRange, AssignedDevice, PciHostBridge, VfioContainerManager } from '../ts/index.ts';
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
const WARM_UP = 10;
const PAIRS = 3;
const GOAL = 1;

async function inTypeScript(bdf: string, firmware: string): Promise<Uint8Array> {
  const { memory, vm } = await loadFirmware(firmware);
  const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
  vm.attach(bridge);
  const manager = new VfioContainerManager(memory);
  const device = await AssignedDevice.create({ device: await manager.open(bdf), memory });
  bridge.add(ADDRESS, device);
  const printed: number[] = [];
  vm.ports.add(DEBUG_PORT, 1, { read: () => DEBUG_PORT, write: (_port, _width, value) => void printed.push(value) });
  vm.ports.add(EXIT_PORT, 1, { read: () => 0, write: (_port, _width, value) => vm.stop(String(value)) });
  const reason = await vm.run();
  bridge.remove(ADDRESS);
  await device.close();
  await manager.close();
  await vm.close();
  await memory.close();
  if (reason !== '0') throw new Error(`the guest ended with ${reason}`);
  return Uint8Array.from(printed);
}

/** The microseconds of each part of each move. */
function movesOf(printed: Uint8Array): number[][] {
  const ticks = new Uint32Array(printed.slice().buffer);
  const moves = Array.from({ length: ticks.length / PARTS }, (_, move) =>
    [...ticks.subarray(move * PARTS, (move + 1) * PARTS)].map((count) => count / TICKS_PER_MICROSECOND),
  );
  return moves.slice(WARM_UP);
}

/** The frequency that the kernel has measured. */
function tickRate(): number {
  const [, megahertz] = /^cpu MHz\s*: ([\d.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1')) ?? [];
  return Number(megahertz);
}

const TICKS_PER_MICROSECOND = tickRate();

/** The median of the move, and of each part. */
function mediansOf(moves: readonly number[][]): number[] {
  const total = moves.map(([off = 0, address = 0, on = 0]) => off + address + on);
  const parts = Array.from({ length: PARTS }, (_, part) => median(moves.map((move) => move[part] ?? NaN)));
  return [median(total), ...parts];
}

async function barMoves(bdf: string, firmware: string): Promise<Figure> {
  const [typescript, qemu]: [number[][], number[][]] = [[], []];
  for (let pair = 0; pair < PAIRS; pair++) {
    qemu.push(...movesOf(runFirmware(firmware, RAM_LENGTH, ['-device', `vfio-pci,host=${bdf},addr=4`])));
    typescript.push(...movesOf(await inTypeScript(bdf, firmware)));
  }
  const [ours, theirs] = [mediansOf(typescript), mediansOf(qemu)];
  const ratio = (ours[0] ?? NaN) / (theirs[0] ?? NaN);
  const values = `${formatValues(ours, 0)} against ${formatValues(theirs, 0)} µs`;
  return {
    name: 'BAR of an ivshmem moved by a guest: all / decode off / address / decode on; first read. Against QEMU',
    measured: `${values}: ${ratio.toFixed(2)}×`,
    goal: `≤ ${GOAL.toFixed(1)}×`,
    met: ratio <= GOAL,
  };
}

const [bdf = '', firmware = ''] = process.argv.slice(2);
console.log(JSON.stringify(await barMoves(bdf, firmware)));
