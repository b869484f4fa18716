// The number of calls of the native core for a change of many blocks does not depend on their number.
import test from 'ava';
import { NativeReservation } from '#native';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { KernelTarget, type NativeSpace } from '../../ts/dma/kernel-target.ts';
import { readPeerPolicy } from '../../ts/dma/peer-policy.ts';
import { joinPort } from '../../ts/guest/dma-mapper-client.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';

const MiB = 1n << 20n;
const BLOCK = 2n * MiB;
const START = 4n << 30n;

/** Calls of address spaces and of the host view since the last time. */
let calls: string[] = [];
const takeCalls = (): string[] => calls.splice(0);

/** An address space that records its calls, and maps nothing. */
class RecordedTarget extends KernelTarget {
  readonly needsVa: true | 'private';
  protected readonly dirtyPageSize = 4096n;

  constructor(name: string, needsVa: true | 'private') {
    const record = (op: string, words: BigUint64Array, each: number): void =>
      void calls.push(`${name}: ${op} ${words.length / each}`);
    const space: NativeSpace = {
      map: (_reservation, _files, requests) => (record('map', requests, 4), null),
      mapAsync: async (_reservation, _files, requests) => (record('map', requests, 4), null),
      unmap: (ranges) => (record('unmap', ranges, 2), []),
      unmapAsync: async (ranges) => (record('unmap', ranges, 2), []),
      setDirtyTracking: async () => {},
      dirtyPages: async () => new BigUint64Array(),
    };
    super(space, name, () => ({ pageSize: 4096n, iovaRanges: [AddressRange.of(0n, 1n << 48n)] }));
    this.needsVa = needsVa;
  }
}

function recordHostView(): void {
  const prototype = NativeReservation.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const op of ['mapFile', 'mapFiles', 'mapFilesAsync', 'mapPrivate', 'unmap', 'ensureMapped', 'lease']) {
    const real = prototype[op] as (...args: unknown[]) => unknown;
    prototype[op] = function recorded(this: NativeReservation, ...args: unknown[]): unknown {
      calls.push(`host view: ${op}`);
      return real.apply(this, args);
    };
  }
}

test.serial('1,000 blocks of 2 MiB are plugged and unplugged by one call of each target', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const space = guestAddressSpaceOf(memory);
  for (const target of [new RecordedTarget('type1', true), new RecordedTarget('iommufd', 'private')]) {
    await joinPort(space, target, readPeerPolicy());
  }
  const ram = await memory.addPluggableRam({ start: START, length: 2000n * BLOCK, blockSize: BLOCK });
  recordHostView();
  const blocks = AddressRange.of(START + BLOCK, 1000n * BLOCK);
  takeCalls();
  await ram.plug([blocks]);
  t.deepEqual(takeCalls(), ['host view: mapFilesAsync', 'type1: map 1000', 'iommufd: map 1000']);
  await ram.unplug([blocks]);
  t.deepEqual(takeCalls(), ['type1: unmap 1000', 'iommufd: unmap 1000', 'host view: unmap']);
  const everySecond = Array.from({ length: 1000 }, (_, n) => AddressRange.of(START + BigInt(2 * n) * BLOCK, BLOCK));
  await ram.plug(everySecond);
  t.deepEqual(takeCalls(), ['host view: mapFilesAsync', 'type1: map 1000', 'iommufd: map 1000']);
});
