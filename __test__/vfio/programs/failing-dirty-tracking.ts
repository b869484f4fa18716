/**
 * A process in which each allocation of the kernel fails in dirty tracking, one after another. It is started as
 * `failing-dirty-tracking.ts IVSHMEM IVSHMEM`, with `preload/fail-nth.c` and both devices behind a mock IOMMU.
 */
import assert from 'node:assert/strict';
import { AddressRange, type DirtyTracking, GuestMemory, PeerDmaError, type VfioDevice } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';
import { FailNth, titleOf } from '../support/fail-nth.ts';
import { FailingGuest, assertFailedIn } from '../support/failing-guest.ts';
import { MockIommu } from '../support/mock-iommu.ts';
import { runScenarios } from '../support/run-scenarios.ts';

const PAGE = 4096n;
/** Its bitmap fills a page, which the C library maps anew for each read (`MALLOC_MMAP_THRESHOLD_`). */
const LARGE = AddressRange.of(0x2000_0000n, 0x800_0000n);

const [first = '', second = ''] = process.argv.slice(2);
const memory = await GuestMemory.create({ ram: [{ start: 0x1000_0000n, length: 0x1_0000n, prefault: true }] });
const manager = newManager(memory);
const guest = new FailingGuest(memory, manager);
const mock = new MockIommu();
const devices: VfioDevice[] = [];
let tracking: DirtyTracking | undefined;

const start = async (): Promise<void> => {
  tracking = await manager.startDirtyTracking();
};
const stop = async (): Promise<void> => tracking?.stop();
const open = (bdf: string) => async (): Promise<void> => void devices.push(await manager.open(bdf));
const close = async (): Promise<void> => {
  await devices.pop()?.close();
};

/** Reads again after each failure, and checks that one of both reads returns the page that was written. */
async function readWithFailures(): Promise<string[]> {
  const region = await memory.regions.addRegion({ name: 'large', range: LARGE });
  await region.addMapping({ range: AddressRange.of(0n, LARGE.length), backing: 'private' });
  await region.mapToGuest();
  const fault = new FailNth();
  const failures: string[] = [];
  for (let nth = 1; ; nth++) {
    const page = 100 + 2 * nth;
    assert.equal(mock.write(0, LARGE.start, LARGE.length, [page]), '1');
    const at = LARGE.start + BigInt(page) * PAGE;
    let result = 'no error';
    let returned = false;
    fault.arm(nth);
    try {
      returned = (await tracking?.readDirty(LARGE))?.contains(at) === true;
    } catch (error) {
      if (!(error instanceof PeerDmaError)) throw error;
      result = error.code;
    }
    const failed = fault.disarm();
    if (failed !== undefined) failures.push(`${failed.name}: ${failed.result}, ${result}`);
    if (!returned) returned = (await tracking?.readDirty(LARGE))?.contains(at) === true;
    assert.ok(returned, `page ${page} is lost: ${failures.at(-1)}`);
    if (failed === undefined) break;
  }
  assertFailedIn(failures, 'HWPT_GET_DIRTY_BITMAP');
  return failures;
}

await runScenarios({
  [titleOf('a device opens whose IOMMU logs')]: () =>
    guest.failEach({ run: open(first), undo: close, failsIn: 'HWPT_ALLOC' }),
  [titleOf('tracking starts')]: async () => {
    await open(first)();
    return guest.failEach({ run: start, undo: stop, failsIn: 'HWPT_SET_DIRTY_TRACKING' });
  },
  [titleOf('a device opens during tracking')]: async () => {
    await start();
    return guest.failEach({ run: open(second), undo: close, failsIn: 'GET_HW_INFO' });
  },
  'loses no dirty page if an allocation of the kernel fails while they are read': readWithFailures,
});
await manager.close();
await memory.close();
