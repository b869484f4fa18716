/**
 * An address space of the kernel as a target. Maps each batch in one call of the native core.
 *
 * It is a VFIO container, an IOAS of iommufd, or the memory slots of KVM.
 */
import type { NativeFailure, NativeMapFailure, NativeMemoryFile, NativeReservation } from '#native';
import { AddressRange } from '../address-range.ts';
import { ALL_MEMORY } from './accepted-memory.ts';
import { CallGate } from './call-gate.ts';
import { DirtyPages } from './dirty-pages.ts';
import { mapFailed, unmapFailed } from './mapping-error.ts';
import { type MappingFailure, failureOf } from './mapping-failure.ts';
import { type IommuLimits, type Refusal, refusedMapping } from './refusal.ts';
import { type SubMapping, isFaultedIn, mapRequest } from './sub-mapping.ts';
import {
  type MapFailure,
  type MapResult,
  type TargetPort,
  type UnmapOptions,
  type UnmapResult,
  rolledBack,
} from './target-port.ts';
import { PeerDmaError, throwIf } from '../errors.ts';
import { FileNumbers } from '../memory/file-numbers.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { needsWorkerThread } from '../memory/worker-thread.ts';
import { fromNative, nativeAsync } from '../native-call.ts';
import { nativeWords } from '../native-words.ts';
import { batchesOf } from '../slices.ts';

/** The methods of the native core for an address space. @internal */
export interface NativeSpace {
  /** Returns `null` if all are mapped. */
  map(
    reservation: NativeReservation | undefined,
    files: NativeMemoryFile[],
    requests: BigUint64Array,
  ): NativeMapFailure | null;
  mapAsync(
    reservation: NativeReservation | undefined,
    files: NativeMemoryFile[],
    requests: BigUint64Array,
  ): Promise<NativeMapFailure | null>;
  unmap(ranges: BigUint64Array, all: boolean): NativeFailure[];
  unmapAsync(ranges: BigUint64Array, all: boolean): Promise<NativeFailure[]>;
  setDirtyTracking(on: boolean): Promise<void>;
  dirtyPages(iova: bigint, length: bigint, pageSize: bigint): Promise<BigUint64Array>;
}

/** Words in a request to the native core: IOVA, length, flags, and offset in the reservation or file. */
const WORDS = 4;
const WRITABLE = 1n;
const FILE = 2n;
const FAULT_IN = 4n;

const U64_MAX = (1n << 64n) - 1n;

/** A batch in the encoding of the native core. @internal */
export interface EncodedBatch {
  readonly reservation: NativeReservation | undefined;
  readonly files: NativeMemoryFile[];
  readonly requests: BigUint64Array;
}

/** @internal */
export abstract class KernelTarget<L extends IommuLimits = IommuLimits> implements TargetPort {
  readonly name: string;
  abstract readonly needsVa: true | 'private';
  readonly accepts = ALL_MEMORY;
  readonly faultsIn = true;
  readonly calls: CallGate = new CallGate();
  readonly #space: NativeSpace;
  readonly #readLimits: () => L;
  #limits: L | undefined;
  /** Whether an unmap clears the kernel's log of the mapping. */
  protected readonly clearsLogOnUnmap: boolean = false;
  /** While tracking is active: receives dirty pages of a mapping before it is unmapped. */
  #onUnmap: ((pages: DirtyPages) => void) | undefined;
  /** Number of calls that run on worker threads. */
  #pendingCalls = 0;

  protected constructor(space: NativeSpace, name: string, readLimits: () => L) {
    this.#space = space;
    this.name = name;
    this.#readLimits = readLimits;
  }

  get target(): object {
    return this;
  }

  /**
   * Whether memory is being pinned or unpinned. Other calls of the address space block until that ends.
   */
  get busy(): boolean {
    return this.#pendingCalls > 0;
  }

  iovaRanges(): readonly AddressRange[] {
    return this.limits().iovaRanges;
  }

  /**
   * Returns the limits of the address space. While memory is being pinned or unpinned, returns the limits from before,
   * since the kernel would block until that ends.
   */
  limits(): L {
    if (this.#limits === undefined || !this.busy) this.#limits = this.#readLimits();
    return this.#limits;
  }

  map(subs: readonly SubMapping[], va: () => VaMapper): MapResult | Promise<MapResult> {
    return this.calls.run(() =>
      needsWorkerThread(subs, lengthOf)
        ? this.runBusy(() => this.#mapBatches(subs, va))
        : this.#encodeAndMapBatch(subs, va, false),
    );
  }

  unmap(subs: readonly SubMapping[], options: UnmapOptions): UnmapResult | Promise<UnmapResult> {
    const pending = this.calls.run(() =>
      needsWorkerThread(subs, lengthOf)
        ? this.runBusy(() => this.#unmapBatches(subs, options))
        : this.unmapBatch(subs, options, false),
    );
    return pending instanceof Promise ? pending.then((failures) => failures ?? []) : (pending ?? []);
  }

  /** Maps all of a batch or none. @param subs in the order of its requests */
  mapBatch(
    subs: readonly SubMapping[],
    { reservation, files, requests }: EncodedBatch,
    onThread: boolean,
  ): MapResult | Promise<MapResult> {
    return convertOutcome(
      () =>
        onThread ? this.#space.mapAsync(reservation, files, requests) : this.#space.map(reservation, files, requests),
      (failure) => this.#mapResult(subs, failure),
      (thrown) => ({ error: this.#mapError(subAt(subs, thrown), thrown), stillMapped: [] }),
    );
  }

  /** Unmaps a batch, with the parameters and the result of {@link KernelTarget.unmap}. */
  protected unmapBatch(
    subs: readonly SubMapping[],
    options: UnmapOptions,
    onThread: boolean,
  ): UnmapResult | Promise<UnmapResult> {
    const isLogged = this.#onUnmap !== undefined;
    return isLogged ? this.#unmapLogged(subs, options, onThread) : this.#unmapNow(subs, options, onThread);
  }

  #unmapNow(
    subs: readonly SubMapping[],
    { afterFailure }: UnmapOptions,
    onThread: boolean,
  ): UnmapResult | Promise<UnmapResult> {
    const all = afterFailure === 'continue';
    const ranges = nativeWords(subs.length * 2);
    let at = 0;
    for (const { range } of subs) {
      ranges[at++] = range.start;
      ranges[at++] = range.length;
    }
    return convertOutcome(
      () => (onThread ? this.#space.unmapAsync(ranges, all) : this.#space.unmap(ranges, all)),
      (failures) => this.#unmapFailures(subs, failures),
      (thrown) => subs.map((sub) => failureOf(sub, unmapFailed(this.name, sub, thrown))),
    );
  }

  abandon(): void {}

  /** Runs a call that takes long, with {@link KernelTarget.busy} set. */
  async runBusy<T>(call: () => Promise<T>): Promise<T> {
    this.#pendingCalls++;
    try {
      return await call();
    } finally {
      this.#pendingCalls--;
    }
  }

  /**
   * Starts to log the pages that are written.
   *
   * @param onUnmap receives the dirty pages of a mapping before it is unmapped, if the kernel loses them then
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if the IOMMU of a device does not log
   */
  async startDirtyTracking(onUnmap: (pages: DirtyPages) => void): Promise<void> {
    await this.runBusy(() => nativeAsync(() => this.#space.setDirtyTracking(true), { target: this.name }));
    if (this.clearsLogOnUnmap) this.#onUnmap = onUnmap;
  }

  async stopDirtyTracking(): Promise<void> {
    await this.runBusy(() => nativeAsync(() => this.#space.setDirtyTracking(false), { target: this.name }));
    this.#onUnmap = undefined;
  }

  /** @param range the range of one mapping or of several */
  async readDirty(range: AddressRange): Promise<DirtyPages> {
    const page = this.dirtyPageSize;
    const read = (): Promise<BigUint64Array> => this.#space.dirtyPages(range.start, range.length, page);
    const bitmap = await this.runBusy(() => nativeAsync(read, { range, target: this.name }));
    return new DirtyPages(range, page, bitmap);
  }

  /** Bytes for each bit of a dirty bitmap. */
  protected abstract readonly dirtyPageSize: bigint;

  /** Returns why the kernel cannot map a sub-mapping, if that is known without a system call. */
  protected refusal(sub: SubMapping): PeerDmaError | undefined {
    return sub.range.end > U64_MAX ? this.#refusedMapping(sub, { errno: 'EOVERFLOW' }) : undefined;
  }

  /** Reads the dirty pages of each sub-mapping before it is unmapped. Unmapping clears the kernel's log of them. */
  async #unmapLogged(subs: readonly SubMapping[], options: UnmapOptions, onThread: boolean): Promise<UnmapResult> {
    const all = options.afterFailure === 'continue';
    const unread: MappingFailure[] = [];
    const read: SubMapping[] = [];
    for (const sub of subs) {
      try {
        if (!this.calls.closed) this.#onUnmap?.(await this.readDirty(sub.range));
        read.push(sub);
      } catch (thrown) {
        // The failed read may have cleared a part of the log.
        this.#onUnmap?.(DirtyPages.all(sub.range, this.dirtyPageSize));
        unread.push(failureOf(sub, unmapFailed(this.name, sub, thrown)));
        if (!all) break;
      }
    }
    const failures = await this.#unmapNow(read, options, onThread);
    return all || failures.length === 0 ? [...failures, ...unread] : failures;
  }

  /** @throws {PeerDmaError} what {@link KernelTarget.refusal} returns; as {@link VaMapper.requireMapped} */
  #encode(subs: readonly SubMapping[], va: () => VaMapper): EncodedBatch {
    const byFile = this.needsVa === 'private';
    const numbers = new FileNumbers();
    const requests = nativeWords(subs.length * WORDS);
    let view: VaMapper | undefined;
    let at = 0;
    for (const sub of subs) {
      throwIf(this.refusal(sub));
      const { range, memory, writable } = sub;
      let flags = writable ? WRITABLE : 0n;
      let offset = range.start;
      if (byFile && memory.file !== undefined) {
        flags |= FILE | numbers.flagsOf(memory.file);
        ({ offset } = memory);
      } else {
        view ??= va();
        view.requireMapped(sub);
        if (isFaultedIn(sub)) flags |= FAULT_IN;
      }
      requests[at++] = range.start;
      requests[at++] = range.length;
      requests[at++] = flags;
      requests[at++] = offset;
    }
    return { reservation: view?.reservation, files: numbers.files, requests };
  }

  /** Encodes a batch, and maps all of it or none. */
  #encodeAndMapBatch(
    subs: readonly SubMapping[],
    va: () => VaMapper,
    onThread: boolean,
  ): MapResult | Promise<MapResult> {
    let encoded: EncodedBatch;
    try {
      encoded = this.#encode(subs, va);
    } catch (thrown) {
      return { error: mapFailed(this.name, subAt(subs, thrown), thrown), stillMapped: [] };
    }
    return this.mapBatch(subs, encoded, onThread);
  }

  /** Maps all or none, on worker threads. The next batch is encoded and leased while the one before is mapped. */
  async #mapBatches(subs: readonly SubMapping[], va: () => VaMapper): Promise<MapResult> {
    const done: (readonly SubMapping[])[] = [];
    const failures: MapFailure[] = [];
    const record = async (batch: readonly SubMapping[]): Promise<void> => {
      const failure = await this.#encodeAndMapBatch(batch, va, true);
      if (failure === undefined) done.push(batch);
      else failures.push(failure);
    };
    let before: Promise<void> | undefined;
    for (const batch of batchesOf(subs)) {
      if (failures.length > 0 || this.calls.closed) break;
      const pending = record(batch);
      await before;
      before = pending;
    }
    await before;
    const [first, second] = failures;
    if (first === undefined) return undefined;
    const stillMapped = await this.#unmapBatches(done.flat().reverse(), { afterFailure: 'continue' });
    return rolledBack(first, [...(second?.stillMapped ?? []), ...stillMapped]);
  }

  async #unmapBatches(subs: readonly SubMapping[], options: UnmapOptions): Promise<UnmapResult> {
    const failures: MappingFailure[] = [];
    for (const batch of batchesOf(subs)) {
      for (const failure of await this.unmapBatch(batch, options, true)) failures.push(failure);
      if (this.calls.closed || (failures.length > 0 && options.afterFailure === 'stop')) break;
    }
    return failures;
  }

  #mapResult(subs: readonly SubMapping[], failure: NativeMapFailure | null): MapResult {
    if (failure === null) return undefined;
    const { failed, stillMapped } = failure;
    const error = this.#mapError(subs[failed.index] as SubMapping, failed.error);
    return rolledBack({ error, stillMapped: [] }, this.#unmapFailures(subs, stillMapped));
  }

  #unmapFailures(subs: readonly SubMapping[], failures: readonly NativeFailure[]): MappingFailure[] {
    return failures.map(({ index, error }) => {
      const sub = subs[index] as SubMapping;
      return failureOf(sub, unmapFailed(this.name, sub, fromNative(error)));
    });
  }

  /** Converts an error of the native core. */
  #mapError(sub: SubMapping, thrown: unknown): PeerDmaError {
    const error = fromNative(thrown);
    if (!(error instanceof PeerDmaError) || error.code !== 'ERR_MAP_FAILED' || error.errno === undefined) {
      return mapFailed(this.name, sub, error);
    }
    const { errno, syscall } = error;
    return this.#refusedMapping(sub, { errno, syscall, cause: error });
  }

  /** The limits are read anew each time. They change with every group or device that is attached or detached. */
  #refusedMapping(sub: SubMapping, refusal: Omit<Refusal, 'target' | 'limits'>): PeerDmaError {
    return this.refused(sub, { ...refusal, target: this.name, limits: this.limits() });
  }

  /** Explains why the kernel rejected a mapping. */
  protected refused(sub: SubMapping, refusal: Refusal): PeerDmaError {
    return refusedMapping(mapRequest(sub, undefined), refusal);
  }
}

/** Converts the result or the error of a call that may be asynchronous. */
function convertOutcome<A, B>(
  call: () => A | Promise<A>,
  done: (value: A) => B,
  failed: (thrown: unknown) => B,
): B | Promise<B> {
  try {
    const value = call();
    return value instanceof Promise ? value.then(done, failed) : done(value);
  } catch (thrown) {
    return failed(thrown);
  }
}

function lengthOf({ range }: SubMapping): bigint {
  return range.length;
}

/** Returns the sub-mapping in which an error occurred. */
function subAt(subs: readonly SubMapping[], thrown: unknown): SubMapping {
  const error = fromNative(thrown);
  const range = error instanceof PeerDmaError ? error.range : undefined;
  return subs.find((sub) => range !== undefined && sub.range.overlaps(range)) ?? (subs[0] as SubMapping);
}

/** Pairs of start and length as ranges. @internal */
export function rangesOf(pairs: BigUint64Array): AddressRange[] {
  const ranges: AddressRange[] = [];
  for (let at = 0; at + 1 < pairs.length; at += 2) ranges.push(AddressRange.of(pairs[at] ?? 0n, pairs[at + 1] ?? 0n));
  return ranges;
}
