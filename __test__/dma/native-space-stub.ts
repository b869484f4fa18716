/**
 * A stub of a container or address space of the native core. It records its calls, and fails on demand. The kernel
 * cannot be made to fail at each of these calls.
 */
import type { NativeFailure, NativeMapFailure } from '#native';
import type { ExecutionContext } from 'ava';
import type { DmaMapperHandle, GuestMemory, Region } from '../../ts/index.ts';
import { readPeerPolicy } from '../../ts/dma/peer-policy.ts';
import { joinPort } from '../../ts/guest/dma-mapper-client.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { openBacking } from '../../ts/memory/backing.ts';
import { IommufdTarget } from '../../ts/vfio/iommufd/iommufd-target.ts';
import { Type1Target } from '../../ts/vfio/type1/type1-target.ts';
import { at, pages, taggedFile } from '../support/pages.ts';
import { until } from '../support/until.ts';
import { nativeError } from '../support/native-error.ts';

/** Completes every call at once, except those on worker threads, which end when `finish` is called. */
export class NativeSpaceStub {
  readonly calls: string[] = [];
  /** First pages of the ranges of all unmap calls. */
  readonly unmapped: bigint[] = [];
  /** The results of the next calls of `map`, and of `unmap`. */
  mapFailures: (NativeMapFailure | null)[] = [];
  unmapFailures: NativeFailure[][] = [];
  /** The range whose dirty pages cannot be read. */
  unreadable: bigint | undefined;
  #finish: (() => void)[] = [];
  #waits = true;

  /** Whether a call on a worker thread is in progress. */
  get isAtWork(): boolean {
    return this.#finish.length > 0;
  }

  finish(): void {
    for (const end of this.#finish.splice(0)) end();
  }

  /** Ends the oldest of the calls. */
  finishFirst(): void {
    this.#finish.shift()?.();
  }

  /** Ends all calls, and later ones at once, so that a failing test can close its guest memory. */
  release(): void {
    this.#waits = false;
    this.finish();
  }

  /** Ends calls until a promise settles. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const end = (): void => void (settled = true);
    promise.then(end, end);
    await until(() => {
      this.finish();
      return settled;
    }, 'all calls end');
    return promise;
  }

  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  info() {
    this.calls.push('info');
    return { alignment: 4096n, pageSizes: 4096n, iovaRanges: BigUint64Array.of(0n, 1n << 48n) };
  }

  map(): NativeMapFailure | null {
    this.calls.push('map');
    return this.mapFailures.shift() ?? null;
  }

  mapAsync(): Promise<NativeMapFailure | null> {
    return this.#later('mapAsync', this.mapFailures.shift() ?? null);
  }

  unmap(ranges: BigUint64Array): NativeFailure[] {
    this.calls.push('unmap');
    return this.#unmap(ranges);
  }

  unmapAsync(ranges: BigUint64Array): Promise<NativeFailure[]> {
    return this.#later('unmapAsync', this.#unmap(ranges));
  }

  setDirtyTracking(): Promise<void> {
    return this.#later('setDirtyTracking', undefined);
  }

  async dirtyPages(iova: bigint): Promise<BigUint64Array> {
    await this.#later('dirtyPages', undefined);
    if (iova === this.unreadable) {
      throw nativeError('ERR_SYSTEM', 'the log can not be read', { errno: 'EIO', syscall: 'ioctl(READ)' });
    }
    return BigUint64Array.of(4n);
  }

  #unmap(ranges: BigUint64Array): NativeFailure[] {
    for (let index = 0; index < ranges.length; index += 2) this.unmapped.push((ranges[index] ?? 0n) / at(1));
    return this.unmapFailures.shift() ?? [];
  }

  #later<T>(call: string, result: T): Promise<T> {
    this.calls.push(call);
    if (!this.#waits) return Promise.resolve(result);
    return new Promise((resolve) => this.#finish.push(() => resolve(result)));
  }
}

export type Port = Type1Target | IommufdTarget;

export function ports(): [NativeSpaceStub, Port][] {
  const [container, ioas] = [new NativeSpaceStub(), new NativeSpaceStub()];
  return [
    [container, new Type1Target(container as never, 'container')],
    [ioas, new IommufdTarget(ioas as never, 'ioas', true)],
  ];
}

export function join(
  t: ExecutionContext,
  memory: GuestMemory,
  [stub, port]: [NativeSpaceStub, Port],
): Promise<DmaMapperHandle> {
  t.teardown(() => stub.release()); // before the memory is closed
  return joinPort(guestAddressSpaceOf(memory), port, readPeerPolicy());
}

/** An inactive region with `count` mappings of a page each, at its start. */
export async function regionOf(t: ExecutionContext, memory: GuestMemory, count: number): Promise<Region> {
  const file = taggedFile(t, 'ram', count, 0);
  const region = await memory.regions.addRegion({ name: 'region', range: pages(0, count) });
  // In one change by the internal interface: the public one makes a change for each.
  await guestAddressSpaceOf(memory).change((draft) => {
    const id = draft.regions().find(({ name }) => name === 'region')?.id ?? NaN;
    for (let page = 0; page < count; page++) {
      const memory = openBacking({ file, offset: at(page) }, at(1));
      draft.addMapping(id, { range: pages(page, 1), memory, writable: true });
    }
  });
  return region;
}

/** First page and state of each mapping. */
export function states(handle: DmaMapperHandle): [bigint, string][] {
  return handle.status().map(({ range, state }) => [range.start / at(1), state]);
}

/** Ends the test of a target with a quarantine. */
export function abandon(memory: GuestMemory, port: Port): Promise<void> {
  return guestAddressSpaceOf(memory).targetClosed(port);
}

export const refusal = (index: number, ...stillMapped: NativeFailure[]): NativeMapFailure => ({
  failed: { index, error: nativeError('ERR_MAP_FAILED', 'no room', { errno: 'ENOSPC', syscall: 'ioctl(MAP)' }) },
  stillMapped,
});
export const stuck = (index: number): NativeFailure => ({
  index,
  error: nativeError('ERR_UNMAP_FAILED', 'no', { errno: 'EINVAL', syscall: 'ioctl(UNMAP)' }),
});
