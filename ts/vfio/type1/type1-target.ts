/**
 * A VFIO container of type1v2 as a DMA target.
 */
import type { NativeReservation, NativeVfioContainer } from '#native';
import type { AddressRange } from '../../address-range.ts';
import { DirtyPages } from '../../dma/dirty-pages.ts';
import { requireHostMemory } from '../../dma/mapping-source.ts';
import { refusedMapping } from '../../dma/refusal.ts';
import type { DmaMapRequest, DmaTarget } from '../../dma/target.ts';
import { PeerDmaError } from '../../errors.ts';
import { fromNative, native, nativeAsync } from '../../native-call.ts';
import { leaseOf } from '../../memory/host-memory.ts';
import { ON_A_THREAD } from '../../memory/va-mapper.ts';
import { type ContainerLimits, limitsOf } from './iommu-limits.ts';

/** Words of a request to the native core: IOVA, lease, flags. */
const WORDS = 3;
const WRITABLE = 1n;

const U64_MAX = (1n << 64n) - 1n;

/** Maps guest memory into the IOMMU domains of one container. Made by {@link VfioContainerManager}. */
export class Type1Target implements DmaTarget {
  readonly name: string;
  readonly needsVa = true;
  readonly #container: NativeVfioContainer;
  /** Calls that a worker thread is at. */
  #underWay = 0;
  #limits: ContainerLimits | undefined;

  /** @internal */
  constructor(container: NativeVfioContainer, name: string) {
    this.#container = container;
    this.name = name;
  }

  /**
   * Whether memory is being pinned or unpinned. Whatever else is asked of the container waits in the kernel for the end of it.
   *
   * @internal
   */
  get busy(): boolean {
    return this.#underWay > 0;
  }

  iovaRanges(): readonly AddressRange[] {
    return this.limits().iovaRanges;
  }

  /**
   * What the container's IOMMU can do now; while memory is being pinned or unpinned, what it could do before: the
   * kernel would answer at the end of that.
   *
   * @internal
   */
  limits(): ContainerLimits {
    if (this.#limits === undefined || !this.busy) this.#limits = limitsOf(this.#container);
    return this.#limits;
  }

  /**
   * Maps the memory, by its place in this process.
   *
   * @throws {PeerDmaError} `ERR_HOST_MEMORY_REQUIRED`; what the kernel refuses: `ERR_IOVA_OVERLAP`,
   * `ERR_IOVA_UNREACHABLE`, `ERR_MAPPING_LIMIT`, `ERR_MEMLOCK_LIMIT`, `ERR_MEMORY_FAULT`, `ERR_UNALIGNED`,
   * `ERR_MAP_FAILED`
   */
  mapDma(request: DmaMapRequest): void | Promise<void> {
    return this.#map([request]);
  }

  /** Maps all or none, in one crossing to the native core. Throws as {@link Type1Target.mapDma} does. */
  mapDmaBatch(requests: readonly DmaMapRequest[]): void | Promise<void> {
    return this.#map(requests);
  }

  /**
   * Unmaps every mapping within the range.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED` with what the kernel said
   */
  unmapDma(range: AddressRange): void | Promise<void> {
    const { start, length } = range;
    const details = { range, target: this.name };
    if (length <= ON_A_THREAD) return native(() => this.#container.unmapDma(start, length), details);
    return this.during(() => nativeAsync(() => this.#container.unmapDmaAsync(start, length), details));
  }

  /** Runs a call that takes long; {@link Type1Target.busy} is true meanwhile. @internal */
  async during<T>(call: () => Promise<T>): Promise<T> {
    this.#underWay++;
    try {
      return await call();
    } finally {
      this.#underWay--;
    }
  }

  /**
   * Logs what the kernel can't know not to be written: all that is mapped, for a device that is not mediated. So what is unmapped
   * and mapped again is written in any case.
   *
   * @internal
   */
  startDirtyTracking(): Promise<void> {
    return this.during(() => nativeAsync(() => this.#container.setDirtyTracking(true), { target: this.name }));
  }

  /** @internal */
  stopDirtyTracking(): Promise<void> {
    return this.during(() => nativeAsync(() => this.#container.setDirtyTracking(false), { target: this.name }));
  }

  /** @param range that of a mapping, or of several @internal */
  async readDirty(range: AddressRange): Promise<DirtyPages> {
    const { pageSize } = this.limits();
    const { start, length } = range;
    const read = (): Promise<BigUint64Array> => this.#container.dirtyPages(start, length, pageSize);
    const bitmap = await this.during(() => nativeAsync(read, { range, target: this.name }));
    return new DirtyPages(range, pageSize, bitmap);
  }

  #map(requests: readonly DmaMapRequest[]): void | Promise<void> {
    const words = new BigUint64Array(requests.length * WORDS);
    let reservation: NativeReservation | undefined;
    let bytes = 0n;
    for (const [index, request] of requests.entries()) {
      const lease = leaseOf(requireHostMemory(this.name, request));
      reservation ??= lease.reservation;
      if (reservation !== lease.reservation) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${this.name}: a batch is of one guest memory`, {
          range: request.range,
          target: this.name,
        });
      }
      if (request.range.end > U64_MAX) throw this.#refusedMapping(request, { errno: 'EOVERFLOW' });
      const at = index * WORDS;
      words[at] = request.range.start;
      words[at + 1] = BigInt(lease.id);
      words[at + 2] = request.writable ? WRITABLE : 0n;
      if (bytes <= ON_A_THREAD) bytes += request.range.length;
    }
    if (reservation === undefined) return undefined;
    const memory = reservation;
    if (bytes > ON_A_THREAD) {
      return this.during(() => this.#container.mapDmaAsync(memory, words)).catch((error: unknown) => {
        throw this.#refused(requests, error);
      });
    }
    try {
      return this.#container.mapDma(memory, words);
    } catch (error) {
      throw this.#refused(requests, error);
    }
  }

  /** What the kernel's answer means for the request that it was about. */
  #refused(requests: readonly DmaMapRequest[], thrown: unknown): unknown {
    const error = fromNative(thrown, { target: this.name });
    if (!(error instanceof PeerDmaError) || error.code !== 'ERR_MAP_FAILED' || error.errno === undefined) return error;
    const request = requests.find(({ range }) => error.range?.equals(range)) ?? requests[0];
    if (request === undefined) return error;
    const { errno, syscall } = error;
    return this.#refusedMapping(request, { errno, ...(syscall === undefined ? {} : { syscall }), cause: error });
  }

  /** The limits are read anew each time: they change with every group that comes or goes. */
  #refusedMapping(request: DmaMapRequest, refusal: { errno: string; syscall?: string; cause?: unknown }): PeerDmaError {
    return refusedMapping(request, { ...refusal, target: this.name, limits: this.limits() });
  }
}
