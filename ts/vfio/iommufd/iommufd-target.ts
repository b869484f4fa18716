/**
 * An address space of iommufd (IOAS) as a DMA target.
 */
import type { NativeIoas } from '#native';
import type { AddressRange } from '../../address-range.ts';
import type { IommuLimits } from '../../dma/refusal.ts';
import type { SubMapping } from '../../dma/sub-mapping.ts';
import type { MapResult, UnmapOptions, UnmapResult } from '../../dma/target-port.ts';
import { PeerDmaError } from '../../errors.ts';
import { IntervalMap } from '../../interval-map.ts';
import type { DeviceState } from '../../memory/shared-file.ts';
import { hostPageSize } from '../../memory/page-size.ts';
import { native } from '../../native-call.ts';
import { type EncodedBatch, KernelTarget, rangesOf } from '../../dma/kernel-target.ts';

/** A mapping of a BAR, with {@link DeviceState.revocations} of its device when it was mapped. */
interface MappedBar {
  readonly range: AddressRange;
  readonly device: DeviceState;
  readonly revocations: number;
}

/**
 * Maps guest memory into an address space. RAM is mapped as files, BARs as dma-bufs, private memory by its host virtual
 * address.
 *
 * @internal
 */
export class IommufdTarget extends KernelTarget {
  readonly needsVa: true | 'private';
  readonly #bars = new IntervalMap<MappedBar>();
  protected override readonly clearsLogOnUnmap: boolean = true;

  /**
   * @param mapsFiles whether the kernel maps files; if not, all memory is mapped by its host virtual address, and BARs
   * cannot be mapped
   */
  constructor(ioas: NativeIoas, name: string, mapsFiles: boolean) {
    super(ioas, name, () => limitsOf(ioas));
    this.needsVa = mapsFiles ? 'private' : true;
  }

  /** Whether the kernel maps files. */
  get mapsFiles(): boolean {
    return this.needsVa === 'private';
  }

  override mapBatch(
    subs: readonly SubMapping[],
    batch: EncodedBatch,
    onThread: boolean,
  ): MapResult | Promise<MapResult> {
    const bars = subs.flatMap(({ range, memory }): MappedBar | [] => {
      const device = memory.file?.device;
      return device === undefined ? [] : { range, device, revocations: device.revocations };
    });
    const mapped = super.mapBatch(subs, batch, onThread);
    if (bars.length === 0) return mapped;
    return applyToResult(mapped, (failure) => {
      if (failure === undefined) for (const bar of bars) this.#bars.insert(bar);
      return failure;
    });
  }

  protected override unmapBatch(
    subs: readonly SubMapping[],
    options: UnmapOptions,
    onThread: boolean,
  ): UnmapResult | Promise<UnmapResult> {
    const unmapped = super.unmapBatch(subs, options, onThread);
    if (this.#bars.size === 0) return unmapped;
    const all = options.afterFailure === 'continue';
    return applyToResult(unmapped, (failures) => {
      const stillMapped = new Set(failures.map(({ sub }) => sub));
      const end = all || failures.length === 0 ? subs.length : subs.findIndex((sub) => stillMapped.has(sub));
      for (const sub of subs.slice(0, end)) {
        const bar = stillMapped.has(sub) ? undefined : this.#bars.startingAt(sub.range.start);
        if (bar !== undefined) this.#bars.remove(bar);
      }
      return failures;
    });
  }

  /** Whether it is the mapping of a BAR whose device was switched off or reset since, by this process. */
  isRevoked({ start }: AddressRange): boolean {
    const bar = this.#bars.startingAt(start);
    return bar !== undefined && bar.device.revocations !== bar.revocations;
  }

  protected get dirtyPageSize(): bigint {
    return hostPageSize();
  }

  /** The kernel cannot map a BAR by its host virtual address (`EFAULT`). */
  protected override refusal(sub: SubMapping): PeerDmaError | undefined {
    const { name, range, memory } = sub;
    if (this.mapsFiles || memory.file?.device === undefined) return super.refusal(sub);
    const operation = `${this.name}: cannot map "${name}" at ${range}`;
    const reason = "this kernel's iommufd maps no BARs (Linux 6.19 and later do). Choose the back end 'type1'";
    return new PeerDmaError('ERR_UNSUPPORTED', `${operation}: ${reason}`, { range, target: this.name });
  }
}

function applyToResult<T>(value: T | Promise<T>, next: (value: T) => T): T | Promise<T> {
  return value instanceof Promise ? value.then(next) : next(value);
}

function limitsOf(ioas: NativeIoas): IommuLimits {
  const { alignment, iovaRanges } = native(() => ioas.info());
  return { pageSize: alignment, iovaRanges: rangesOf(iovaRanges) };
}
