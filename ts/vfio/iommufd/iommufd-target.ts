/**
 * An address space of iommufd (IOAS) as a DMA target.
 */
import type { NativeIoas, NativeMemoryFile, NativeReservation } from '#native';
import { AddressRange } from '../../address-range.ts';
import { DirtyPages } from '../../dma/dirty-pages.ts';
import { mappingSource } from '../../dma/mapping-source.ts';
import { type IommuLimits, refusedMapping } from '../../dma/refusal.ts';
import type { DmaMapRequest, DmaTarget } from '../../dma/target.ts';
import { PeerDmaError } from '../../errors.ts';
import { IntervalMap } from '../../interval-map.ts';
import { type DeviceState, deviceStateOf } from '../../memory/device-state.ts';
import { leaseOf } from '../../memory/host-memory.ts';
import { nativeFileOf } from '../../memory/memory-file.ts';
import { hostPageSize } from '../../memory/page-size.ts';
import { ON_A_THREAD } from '../../memory/va-mapper.ts';
import { fromNative, native, nativeAsync } from '../../native-call.ts';

/** Words of a request to the native core: IOVA, length, flags, lease or file, offset. */
const WORDS = 5;
const WRITABLE = 1n;
const FILE = 2n;

const U64_MAX = (1n << 64n) - 1n;

/** A batch as the native core takes it. */
interface Batch {
  readonly words: BigUint64Array;
  readonly files: NativeMemoryFile[];
  /** The BARs among it, as they are before they are mapped. */
  readonly bars: MappedBar[];
  reservation: NativeReservation | undefined;
  /** To be mapped: pinning RAM takes long, and so does mapping a large BAR page by page. */
  bytes: bigint;
}

/** The device whose BAR it is, and how often IOMMUs had lost its BARs when it was mapped. */
interface MappedBar {
  readonly range: AddressRange;
  readonly device: DeviceState;
  readonly revocations: number;
}

/**
 * Maps guest memory into an address space: files as such, BARs as dma-bufs, private memory by its place in this process.
 * Made by {@link VfioContainerManager}.
 */
export class IommufdTarget implements DmaTarget {
  readonly name: string;
  readonly needsVa: true | 'private';
  readonly #ioas: NativeIoas;
  readonly #bars = new IntervalMap<MappedBar>();
  /** Calls that a worker thread is at. */
  #underWay = 0;
  #limits: IommuLimits | undefined;
  /** Who hears of dirty pages that would be forgotten, while they are tracked. */
  #onUnmap: ((pages: DirtyPages) => void) | undefined;

  /**
   * @param mapsFiles whether the kernel maps files; if not, all memory is mapped by its place in this process, and no BAR can be
   * @internal
   */
  constructor(ioas: NativeIoas, name: string, mapsFiles: boolean) {
    this.#ioas = ioas;
    this.name = name;
    this.needsVa = mapsFiles ? 'private' : true;
  }

  /** Whether files are mapped as such: the kernel is asked once. */
  get mapsFiles(): boolean {
    return this.needsVa === 'private';
  }

  /** Whether memory is being pinned or unpinned: whatever else is asked of the address space waits for the end of it. @internal */
  get busy(): boolean {
    return this.#underWay > 0;
  }

  iovaRanges(): readonly AddressRange[] {
    return this.limits().iovaRanges;
  }

  /**
   * What the address space can do now; while memory is being pinned or unpinned, what it could do before: the kernel
   * would answer at the end of that.
   *
   * @internal
   */
  limits(): IommuLimits {
    if (this.#limits === undefined || !this.busy) this.#limits = limitsOf(this.#ioas);
    return this.#limits;
  }

  /**
   * Maps the memory.
   *
   * @throws {PeerDmaError} what the kernel refuses: `ERR_IOVA_OVERLAP`, `ERR_IOVA_UNREACHABLE`, `ERR_MEMLOCK_LIMIT`,
   * `ERR_MEMORY_FAULT`, `ERR_UNALIGNED`, `ERR_UNSUPPORTED`, `ERR_MAP_FAILED`; `ERR_HOST_MEMORY_REQUIRED`
   */
  mapDma(request: DmaMapRequest): void | Promise<void> {
    return this.#map([request]);
  }

  /** Maps all or none, in one crossing to the native core. Throws as {@link IommufdTarget.mapDma} does. */
  mapDmaBatch(requests: readonly DmaMapRequest[]): void | Promise<void> {
    return this.#map(requests);
  }

  /**
   * Unmaps every mapping within the range, each by itself.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED` with what the kernel said; where a mapping would be cut, nothing is unmapped
   */
  unmapDma(range: AddressRange): void | Promise<void> {
    const onUnmap = this.#onUnmap;
    if (onUnmap === undefined) return this.#unmap(range);
    return this.readDirty(range).then((pages) => {
      onUnmap(pages);
      return this.#unmap(range);
    });
  }

  #unmap(range: AddressRange): void | Promise<void> {
    const { start, length } = range;
    const details = { range, target: this.name };
    const done = (): void => {
      for (const bar of this.#bars.overlapping(range)) this.#bars.remove(bar);
    };
    if (length <= ON_A_THREAD) {
      native(() => this.#ioas.unmap(start, length), details);
      return done();
    }
    return this.during(() => nativeAsync(() => this.#ioas.unmapAsync(start, length), details)).then(done);
  }

  /** Whether the mapping of that range is a BAR's whose device was switched off or reset since, by this process. */
  isRevoked({ start }: AddressRange): boolean {
    const bar = this.#bars.startingAt(start);
    return bar !== undefined && bar.device.revocations !== bar.revocations;
  }

  /** @throws {PeerDmaError} `ERR_UNSUPPORTED` where the IOMMU of a device does not log @internal */
  async startDirtyTracking(onUnmap: (pages: DirtyPages) => void): Promise<void> {
    await this.during(() => nativeAsync(() => this.#ioas.setDirtyTracking(true), { target: this.name }));
    this.#onUnmap = onUnmap;
  }

  /** @internal */
  async stopDirtyTracking(): Promise<void> {
    await this.during(() => nativeAsync(() => this.#ioas.setDirtyTracking(false), { target: this.name }));
    this.#onUnmap = undefined;
  }

  /** Whatever takes long while it is under way; see {@link IommufdTarget.busy}. @internal */
  async during<T>(call: () => Promise<T>): Promise<T> {
    this.#underWay++;
    try {
      return await call();
    } finally {
      this.#underWay--;
    }
  }

  /** @internal */
  async readDirty(range: AddressRange): Promise<DirtyPages> {
    const page = hostPageSize();
    const read = (): Promise<BigUint64Array> => this.#ioas.dirtyPages(range.start, range.length, page);
    const bitmap = await this.during(() => nativeAsync(read, { range, target: this.name }));
    return new DirtyPages(range, page, bitmap);
  }

  #map(requests: readonly DmaMapRequest[]): void | Promise<void> {
    const batch = this.#batch(requests);
    const { words, files, reservation, bytes } = batch;
    if (bytes > ON_A_THREAD) {
      return this.during(() => this.#ioas.mapAsync(reservation, files, words)).then(
        () => this.#note(batch),
        (error: unknown) => {
          throw this.#refused(requests, error);
        },
      );
    }
    try {
      this.#ioas.map(reservation, files, words);
    } catch (error) {
      throw this.#refused(requests, error);
    }
    return this.#note(batch);
  }

  #batch(requests: readonly DmaMapRequest[]): Batch {
    const words = new BigUint64Array(requests.length * WORDS);
    const batch: Batch = { words, files: [], bars: [], reservation: undefined, bytes: 0n };
    const numbers = new Map<NativeMemoryFile, number>();
    for (const [index, request] of requests.entries()) {
      const { range, writable } = request;
      const device = deviceOf(request);
      if (device !== undefined && !this.mapsFiles) throw this.#noBars(request);
      if (range.end > U64_MAX) throw this.#refusedMapping(request, { errno: 'EOVERFLOW' });
      const source = mappingSource(this.name, request, this.needsVa);
      const at = index * WORDS;
      words[at] = range.start;
      words[at + 1] = range.length;
      words[at + 2] = writable ? WRITABLE : 0n;
      if (source.hostMemory === undefined) {
        const file = nativeFileOf(source.file);
        const number = numbers.get(file) ?? batch.files.push(file) - 1;
        numbers.set(file, number);
        words[at + 2] = (writable ? WRITABLE : 0n) | FILE;
        words[at + 3] = BigInt(number);
        words[at + 4] = source.offset;
      } else {
        const lease = leaseOf(source.hostMemory);
        batch.reservation ??= lease.reservation;
        if (batch.reservation !== lease.reservation) throw this.#mixed(range);
        words[at + 3] = BigInt(lease.id);
      }
      batch.bytes += range.length;
      if (device !== undefined) batch.bars.push({ range, device, revocations: device.revocations });
    }
    return batch;
  }

  #note({ bars }: Batch): void {
    for (const bar of bars) this.#bars.insert(bar);
  }

  /** The kernel takes no BAR by its place in this process (`EFAULT`). */
  #noBars({ name, range }: DmaMapRequest): PeerDmaError {
    const text = `${this.name}: can't map "${name}" at ${range}: this kernel's iommufd takes no BARs (Linux 6.19 and later do). The back end 'type1' does`;
    return new PeerDmaError('ERR_UNSUPPORTED', text, { range, target: this.name });
  }

  #mixed(range: AddressRange): PeerDmaError {
    const text = `${this.name}: a batch is of one guest memory`;
    return new PeerDmaError('ERR_INVALID_ARGUMENT', text, { range, target: this.name });
  }

  /** What the kernel's answer means for the request that it was about. */
  #refused(requests: readonly DmaMapRequest[], thrown: unknown): unknown {
    const error = fromNative(thrown, { target: this.name });
    if (!(error instanceof PeerDmaError) || error.errno === undefined) return error;
    const request = requests.find(({ range }) => error.range?.equals(range)) ?? requests[0];
    if (request === undefined || error.code !== 'ERR_MAP_FAILED') return error;
    const { errno, syscall } = error;
    return this.#refusedMapping(request, { errno, ...(syscall === undefined ? {} : { syscall }), cause: error });
  }

  /** The limits are read anew each time: they change with every device that comes or goes. */
  #refusedMapping(request: DmaMapRequest, refusal: { errno: string; syscall?: string; cause?: unknown }): PeerDmaError {
    return refusedMapping(request, { ...refusal, target: this.name, limits: this.limits() });
  }
}

/** The device whose BAR is to be mapped. */
function deviceOf({ backing }: DmaMapRequest): DeviceState | undefined {
  return backing === 'private' ? undefined : deviceStateOf(backing.file);
}

function limitsOf(ioas: NativeIoas): IommuLimits {
  const { alignment, iovaRanges } = native(() => ioas.info());
  const ranges: AddressRange[] = [];
  for (let at = 0; at + 1 < iovaRanges.length; at += 2) {
    ranges.push(AddressRange.of(iovaRanges[at] ?? 0n, iovaRanges[at + 1] ?? 0n));
  }
  return { pageSize: alignment, iovaRanges: ranges };
}
