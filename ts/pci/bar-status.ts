/**
 * How the BARs of an assigned device stand: where the guest has them, what of them is memory there, and which IOMMUs don't
 * reach it and why.
 */
import { channel } from 'node:diagnostics_channel';
import { AddressRange, hex } from '../address-range.ts';
import type { MappingStatus } from '../dma/target.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import type { RangeSnapshot } from '../guest/inspect.ts';
import type { BarAddresses, BarWindow, BarWindows } from './bar-windows.ts';
import type { BarKind } from './config/config-space.ts';
import { trappedAreas } from './mappable-areas.ts';

/** How a BAR stands. Ranges are guest-physical. */
export interface BarStatus {
  /** 0 to 5; 6 is the ROM. */
  readonly bar: number;
  /** How wide its address is, or that it is the ROM. */
  readonly kind: BarKind;
  /** Bytes that the guest has to find room for. */
  readonly length: bigint;
  /** Whether it stays where the VMM has put it. */
  readonly pinned: boolean;
  /** Where it answers; `undefined` while the guest has it switched off or not placed. */
  readonly range?: AddressRange;
  /** What of it is memory in the guest. */
  readonly mapped: readonly AddressRange[];
  /** What of it the VMM has to answer for, by {@link AssignedDevice.mmioRead}, and why. */
  readonly trapped: readonly {
    /** Guest-physical addresses. */
    readonly range: AddressRange;
    /** For people. */
    readonly reason: string;
  }[];
  /** What of its memory is hidden by a region of guest memory that has precedence, such as RAM. */
  readonly hidden: readonly {
    /** Guest-physical addresses. */
    readonly range: AddressRange;
    /** Name of the region. */
    readonly by: string;
  }[];
  /** What of its memory a DMA target doesn't reach, and why: with the addresses that would do where those are the cause. */
  readonly unreachable: readonly (Omit<MappingStatus, 'kind' | 'name' | 'state'> & {
    /** Name of the target. */
    readonly target: string;
    /** As in {@link MappingStatus.state}. */
    readonly state: 'failed' | 'skipped' | 'quarantined';
  })[];
}

/** Message of the channel `peerdma:pci.bar`: the guest has placed, moved or switched off a BAR, and guest memory has followed. */
export interface BarEvent {
  /** {@link GuestMemory.id} of the guest memory that the device is in. */
  readonly memory: number;
  /** PCI address. */
  readonly device: string;
  /** How it stands now. */
  readonly bar: BarStatus;
}

const barChannel = channel('peerdma:pci.bar');

/** @param before where the BARs were before the change @internal */
export function publishBars(device: string, before: BarAddresses, memory: GuestMemory, windows: BarWindows): void {
  if (!barChannel.hasSubscribers || before === windows.addresses) return;
  for (const window of windows.windows) {
    const { index } = window.bar;
    if (before.get(index) === windows.addresses.get(index)) continue;
    barChannel.publish({ memory: memory.id, device, bar: statusOf(memory, windows, window) } satisfies BarEvent);
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
  const whole = windows.trapped(window, gpa);
  if (whole !== undefined) {
    return { ...facts, range, mapped: [], trapped: [{ range, reason: whole }], hidden: [], unreachable: [] };
  }
  const inGuest = (area: AddressRange): AddressRange => AddressRange.of(gpa + area.start, area.length);
  const areas = window.areas.map(inGuest);
  const regionId = window.memory?.regionId;
  const subs = areas.flatMap((area) => subMappingsIn(memory, area));
  return {
    ...facts,
    range,
    mapped: subs.filter((sub) => sub.regionId === regionId).map((sub) => sub.range),
    trapped: trappedAreas(bar.length, window.areas).map((area) => ({ range: inGuest(area), reason: TRAPPED })),
    hidden: subs.filter((sub) => sub.regionId !== regionId).map((sub) => ({ range: sub.range, by: sub.name })),
    unreachable: areas.flatMap((area) => unreachableIn(memory, regionId, area)),
  };
}

const TRAPPED = 'it holds the MSI-X table or pending bits, or the host does not let it be mapped';

/** The part of the flat map within a range, by region. */
function subMappingsIn(
  memory: GuestMemory,
  area: AddressRange,
): { range: AddressRange; name: string; regionId: number }[] {
  const subs = addressSpaceOf(memory).map.flat.overlapping(area);
  return subs.map(({ range, name, regionId }) => ({ range: intersection(range, area), name, regionId }));
}

/** The parts of the region's memory within a range that a target does not reach. */
function unreachableIn(
  memory: GuestMemory,
  regionId: number | undefined,
  area: AddressRange,
): BarStatus['unreachable'][number][] {
  const found: BarStatus['unreachable'][number][] = [];
  for (const mapper of addressSpaceOf(memory).mappers) {
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

/** {@link BarStatus} as plain data: what `JSON.stringify` takes. Addresses are hexadecimal. */
export interface BarSnapshot {
  /** 0 to 5; 6 is the ROM. */
  readonly bar: number;
  /** How wide its address is, or that it is the ROM. */
  readonly kind: BarKind;
  /** Bytes that the guest has to find room for, in hexadecimal. */
  readonly length: string;
  /** Whether it stays where the VMM has put it. */
  readonly pinned: boolean;
  /** Where it answers; not there while the guest has it switched off or not placed. */
  readonly range?: RangeSnapshot;
  /** What of it is memory in the guest. */
  readonly mapped: readonly RangeSnapshot[];
  /** What of it the VMM has to answer for, by {@link AssignedDevice.mmioRead}. */
  readonly trapped: readonly (RangeSnapshot & {
    /** For people. */
    readonly reason: string;
  })[];
  /** What of its memory is hidden by a region of guest memory that has precedence. */
  readonly hidden: readonly (RangeSnapshot & {
    /** Name of the region. */
    readonly by: string;
  })[];
  /** What of its memory a DMA target doesn't reach, and why. */
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
