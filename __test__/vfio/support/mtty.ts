/** Serial ports of the kernel's sample for mediated devices (Linux, samples/vfio-mdev/mtty.c). */
import { randomUUID } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import type { DeviceMigration, GuestMemory, VfioContainerManager, VfioDevice } from '../../../ts/index.ts';
import { guest } from '../../support/pages.ts';
import { newManager } from './backend.ts';

const PARENT = '/sys/class/mdev_bus/mtty/mdev_supported_types';

/** Registers of a 16550, by offset in its BAR. */
export const DATA = 0n;
export const LINE_CONTROL = 3n;
export const MODEM_CONTROL = 4n;
export const LINE_STATUS = 5n;
export const SCRATCH = 7n;

/** A test that runs if the kernel has the sample. */
export function testMtty(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  if (existsSync(PARENT)) test.serial(title, body);
  else test.serial.skip(`${title} (needs the kernel's mtty sample; npm test runs it in the testbed)`, () => {});
}

/** Creates a mediated device, which is removed at the end of the test. @returns its UUID */
export function createMtty(t: ExecutionContext, ports: 1 | 2): string {
  const uuid = randomUUID();
  writeFileSync(`${PARENT}/mtty-${ports}/create`, uuid);
  t.teardown(() => writeFileSync(`/sys/bus/mdev/devices/${uuid}/remove`, '1'));
  return uuid;
}

/** An open serial port. */
export interface Mtty {
  readonly device: VfioDevice;
  readonly migration: DeviceMigration;
  readonly memory: GuestMemory;
  readonly manager: VfioContainerManager;
}

/** Creates and opens serial ports in a manager of their own. */
export async function openMttys(t: ExecutionContext, ...ports: (1 | 2)[]): Promise<[Mtty, ...Mtty[]]> {
  const uuids = ports.map((count) => createMtty(t, count));
  const memory = await guest(t, { ram: [{ start: 0n, length: 16n << 20n }] });
  const manager = newManager(memory);
  t.teardown(() => manager.close());
  const open = async (uuid: string): Promise<Mtty> => {
    const device = await manager.open(uuid);
    const { migration } = device;
    if (migration === undefined) throw new Error(`${uuid} cannot migrate`);
    return { device, migration, memory, manager };
  };
  const [first = '', ...others] = uuids;
  const opened: [Mtty, ...Mtty[]] = [await open(first)];
  for (const uuid of others) opened.push(await open(uuid));
  return opened;
}

/** Writes a register of a port. */
export function write8({ device }: Mtty, port: number, offset: bigint, value: number): void {
  device.regions[port]?.write(offset, Uint8Array.of(value));
}

/** Reads a register of a port. */
export function read8({ device }: Mtty, port: number, offset: bigint): number {
  return device.regions[port]?.read(offset, 1)[0] ?? -1;
}

/** All chunks, joined. */
export async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}
