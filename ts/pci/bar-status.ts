/** State of a device's BARs: guest addresses, mapped parts, and IOMMUs that cannot reach them. */
import { channel } from 'node:diagnostics_channel';
import { AddressRange, hex } from '../address-range.ts';
import type { MappingStatus } from '../dma/target.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { RangeSnapshot } from '../guest/inspect.ts';
import { partsOfRegion } from '../guest/memory-change.ts';
import type { BarAddresses, BarWindow, BarWindows } from './bar-windows.ts';
import type { BarKind } from './config/config-space.ts';
import { trappedAreas } from './mappable-areas.ts';

/** State of a BAR. Ranges are guest-physical. */
export interface BarStatus {
  /** 0 to 5; 6 is the ROM. */
  readonly bar: number;
  /** The width of its address, or `rom`. */
  readonly kind: BarKind;
  /** Bytes of guest address space that it takes. */
  readonly length: bigint;
  /** Whether the VMM has pinned it to one guest address. */
  readonly pinned: boolean;
  /** The range that it decodes; `undefined` while the guest has not enabled or placed it. */
  readonly range?: AddressRange;
  /** The parts that are mapped into guest memory: all DMA targets, or those of its policy, can map them. */
  readonly mapped: readonly AddressRange[];
  /**
   * The parts that trap to the VMM (see {@link AssignedDevice.mmioRead}), with the reason. With `mmap: false`, that is
   * the whole BAR, also the mapped parts.
   */
  readonly trapped: readonly {
    /** Guest-physical addresses. */
    readonly range: AddressRange;
    /** A text for humans. */
    readonly reason: string;
  }[];
  /** The parts of its memory hidden by a region of higher priority, such as RAM. */
  readonly hidden: readonly {
    /** Guest-physical addresses. */
    readonly range: AddressRange;
    /** Name of the region. */
    readonly by: string;
  }[];
  /**
   * The parts of its memory that a DMA target cannot reach, with the reason.
   *
   * If the reason is the address, it includes the addresses that the target can map.
   */
  readonly unreachable: readonly (Omit<MappingStatus, 'kind' | 'region' | 'state'> & {
    /** Name of the target. */
    readonly target: string;
    /** As in {@link MappingStatus.state}. */
    readonly state: 'failed' | 'skipped' | 'quarantined';
  })[];
}

/**
 * Message of the channel `peerdma:pci.bar`: the guest has enabled, moved or disabled a BAR.
 *
 * It is published after guest memory was updated.
 */
export interface BarEvent {
  /** {@link GuestMemory.id} of the guest memory that the device is in. */
  readonly memory: number;
  /** PCI address. */
  readonly bdf: string;
  /** Its new state. */
  readonly bar: BarStatus;
}

const barChannel = channel('peerdma:pci.bar');

/**
 * Publishes an event for each BAR whose address has changed.
 *
 * @internal
 *
 * @param before the BAR addresses before the change
 */
export function publishBars(bdf: string, before: BarAddresses, memory: GuestMemory, windows: BarWindows): void {
  if (!barChannel.hasSubscribers || before === windows.addresses) return;
  for (const window of windows.windows) {
    const { index } = window.bar;
    if (before.get(index) === windows.addresses.get(index)) continue;
    barChannel.publish({ memory: memory.id, bdf, bar: statusOf(memory, windows, window) } satisfies BarEvent);
  }
}

/** @internal */
export function barStatus(memory: GuestMemory, windows: BarWindows): BarStatus[] {
  return [...windows.windows].map((window) => statusOf(memory, windows, window));
}

function statusOf(memory: GuestMemory, windows: BarWindows, window: BarWindow): BarStatus {
  const { bar } = window;
  const facts = { bar: bar.index, kind: bar.kind, length: bar.length, pinned: bar.pinned !== undefined };
  const gpa = windows.addresses.get(bar.index);
  if (gpa === undefined) return { ...facts, mapped: [], trapped: [], hidden: [], unreachable: [] };
  const range = AddressRange.of(gpa, bar.length);
  const whole = windows.trapReason(window, gpa);
  if (whole !== undefined) {
    return { ...facts, range, mapped: [], trapped: [{ range, reason: whole }], hidden: [], unreachable: [] };
  }
  const inGuest = (area: AddressRange): AddressRange => AddressRange.of(gpa + area.start, area.length);
  const areas = window.areas.map(inGuest);
  const regionId = window.memory && partsOfRegion(window.memory)?.id;
  const subs = areas.flatMap((area) => subMappingsIn(memory, area));
  return {
    ...facts,
    range,
    mapped: subs.filter((sub) => sub.regionId === regionId).map((sub) => sub.range),
    trapped: window.access.processors
      ? trappedAreas(bar.length, window.areas).map((area) => ({
          range: inGuest(area),
          reason: trapReasonOf(window, area),
        }))
      : [{ range, reason: 'mmap is off for the BAR' }],
    hidden: subs.filter((sub) => sub.regionId !== regionId).map((sub) => ({ range: sub.range, by: sub.name })),
    unreachable: areas.flatMap((area) => unreachableIn(memory, regionId, area)),
  };
}

/** @param area offsets in the BAR */
function trapReasonOf({ traps }: BarWindow, area: AddressRange): string {
  const reasons = new Set(traps.filter(({ range }) => range.overlaps(area)).map(({ reason }) => reason));
  return reasons.size > 0 ? [...reasons].join('; ') : 'VFIO does not support mapping it';
}

/** Returns the sub-mappings of the flat map within a range. */
function subMappingsIn(
  memory: GuestMemory,
  area: AddressRange,
): { range: AddressRange; name: string; regionId: number }[] {
  const subs = guestAddressSpaceOf(memory).map.flat.overlapping(area);
  return subs.map(({ range, name, regionId }) => ({ range: intersection(range, area), name, regionId }));
}

/** Returns the parts of the region's memory within a range that a target cannot reach. */
function unreachableIn(
  memory: GuestMemory,
  regionId: number | undefined,
  area: AddressRange,
): BarStatus['unreachable'][number][] {
  const found: BarStatus['unreachable'][number][] = [];
  for (const mapper of guestAddressSpaceOf(memory).mappers) {
    const status = mapper.status.in(area, (sub) => sub.regionId === regionId);
    for (const { range, state, code, errno, reason } of status) {
      if (state === 'mapped') continue;
      found.push({
        target: mapper.name,
        range,
        state,
        ...(code === undefined ? {} : { code }),
        ...(errno === undefined ? {} : { errno }),
        ...(reason === undefined ? {} : { reason }),
      });
    }
  }
  return found;
}

function intersection(a: AddressRange, b: AddressRange): AddressRange {
  return AddressRange.between(a.start > b.start ? a.start : b.start, a.end < b.end ? a.end : b.end);
}

/** {@link BarStatus} as plain data for `JSON.stringify`. Addresses are hexadecimal. */
export interface BarSnapshot {
  /** 0 to 5; 6 is the ROM. */
  readonly bar: number;
  /** The width of its address, or `rom`. */
  readonly kind: BarKind;
  /** Bytes of guest address space that it takes, in hexadecimal. */
  readonly length: string;
  /** Whether the VMM has pinned it to one guest address. */
  readonly pinned: boolean;
  /** The range that it decodes; absent while the guest has not enabled or placed it. */
  readonly range?: RangeSnapshot;
  /** The parts that are mapped into guest memory. */
  readonly mapped: readonly RangeSnapshot[];
  /** The parts that trap to the VMM (see {@link AssignedDevice.mmioRead}). */
  readonly trapped: readonly (RangeSnapshot & {
    /** A text for humans. */
    readonly reason: string;
  })[];
  /** The parts of its memory hidden by a region of higher priority. */
  readonly hidden: readonly (RangeSnapshot & {
    /** Name of the region. */
    readonly by: string;
  })[];
  /** The parts of its memory that a DMA target cannot reach, with the reason. */
  readonly unreachable: readonly (RangeSnapshot & Omit<BarStatus['unreachable'][number], 'range'>)[];
}

/** @internal */
export function barSnapshot({ length, range, mapped, trapped, hidden, unreachable, ...facts }: BarStatus): BarSnapshot {
  return {
    ...facts,
    length: hex(length),
    ...(range === undefined ? {} : { range: plain(range) }),
    mapped: mapped.map(plain),
    trapped: trapped.map(({ range: at, reason }) => ({ ...plain(at), reason })),
    hidden: hidden.map(({ range: at, by }) => ({ ...plain(at), by })),
    unreachable: unreachable.map(({ range: at, ...why }) => ({ ...plain(at), ...why })),
  };
}

function plain({ start, end }: AddressRange): RangeSnapshot {
  return { start: hex(start), end: hex(end) };
}
