/**
 * Checks snapshots and journal lines that are read from a file.
 */
import type { ErrorCode } from '../errors.ts';
import { MAX_WIDTH, MIN_WIDTH } from '../guest/address-width.ts';
import type {
  MemorySnapshot,
  RangeSnapshot,
  RegionSnapshot,
  MappingStatusSnapshot,
  SubMappingSnapshot,
  TargetSnapshot,
} from '../guest/inspect.ts';
import type { BarSnapshot } from '../pci/bar-status.ts';
import {
  type Check,
  address,
  count,
  fields,
  flag,
  list,
  number,
  oneOf,
  ranged,
  text,
  time,
  wholeNumber,
} from './checks.ts';
import type { ListChange, RegionDelta, SnapshotDelta, TargetDelta } from './delta.ts';
import type { JournalError, JournalLine, JournalStart } from './lines.ts';

const kind = oneOf('ram', 'device');
const peerToPeer = oneOf('best-effort', 'required', 'off');
const state = oneOf('mapped', 'failed', 'skipped', 'quarantined');
const range: Check<RangeSnapshot> = ranged(fields<RangeSnapshot>({ start: address, end: address }, {}));
/** Any text: the journal of another version may have codes that this one does not. */
const code: Check<ErrorCode> = (value, where) => text(value, where) as ErrorCode;
const reasons = { code, errno: text, reason: text };

const regionMapping: Check<RegionSnapshot['mappings'][number]> = ranged(
  fields<RegionSnapshot['mappings'][number]>({ start: address, end: address, backing: text, writable: flag }, {}),
);

const region: Check<RegionSnapshot> = fields<RegionSnapshot>(
  {
    id: count,
    name: text,
    kind,
    priority: number,
    length: address,
    active: flag,
    writable: flag,
    mappings: list(regionMapping),
  },
  { range },
);

const subMapping: Check<SubMappingSnapshot> = ranged(
  fields<SubMappingSnapshot>({ start: address, end: address, region: text, kind, writable: flag, backing: text }, {}),
);

const status: Check<MappingStatusSnapshot> = ranged(
  fields<MappingStatusSnapshot>({ start: address, end: address, region: text, kind, state }, reasons),
);

const kept: Check<MemorySnapshot['quarantine'][number]> = ranged(
  fields<MemorySnapshot['quarantine'][number]>(
    { start: address, end: address, region: text, kind, state, target: text },
    reasons,
  ),
);

const target: Check<TargetSnapshot> = fields<TargetSnapshot>(
  { name: text, peerToPeer, joined: flag, mappings: list(status) },
  {},
);

/** Checks a snapshot, the value that {@link GuestMemory.inspect} returns. @internal */
export const checkSnapshot: Check<MemorySnapshot> = fields<MemorySnapshot>(
  {
    addressWidth: wholeNumber(MIN_WIDTH, MAX_WIDTH),
    regions: list(region),
    flat: list(subMapping),
    targets: list(target),
    quarantine: list(kept),
  },
  {},
);

function hunk<T>(check: Check<T>): Check<ListChange<T>> {
  const added = list(check);
  return (value, where) => {
    const [at, removed, more] = list((one) => one)(value, where);
    return [count(at, `${where}[0]`), count(removed, `${where}[1]`), added(more, `${where}[2]`)];
  };
}

const regionDelta: Check<RegionDelta> = fields<RegionDelta>({ region: count, mappings: list(hunk(regionMapping)) }, {});

const targetDelta: Check<TargetDelta> = fields<TargetDelta>(
  { name: text, peerToPeer, joined: flag, mappings: list(hunk(status)) },
  { from: count },
);

const delta: Check<SnapshotDelta> = fields<SnapshotDelta>(
  {},
  {
    regions: list(hunk(region)),
    mappings: list(regionDelta),
    flat: list(hunk(subMapping)),
    targets: list(targetDelta),
  },
);

const bar: Check<NonNullable<JournalLine['bar']>> = fields<BarSnapshot & { readonly bdf: string }>(
  {
    bdf: text,
    bar: wholeNumber(0, 6), // 6 is the ROM
    kind: oneOf('memory32', 'memory64', 'rom'),
    length: address,
    pinned: flag,
    mapped: list(range),
    trapped: list(ranged(fields({ start: address, end: address, reason: text }, {}))),
    hidden: list(ranged(fields({ start: address, end: address, by: text }, {}))),
    unreachable: list(
      ranged(
        fields<BarSnapshot['unreachable'][number]>(
          { start: address, end: address, target: text, state: oneOf('failed', 'skipped', 'quarantined') },
          reasons,
        ),
      ),
    ),
  },
  { range },
);

/** Checks the first line of a journal. @internal */
export const checkStart: Check<JournalStart> = fields<JournalStart>(
  { journal: oneOf('peerdma'), version: oneOf(1), time, snapshot: checkSnapshot },
  {},
);

/** Checks a later line of a journal. @internal */
export const checkLine: Check<JournalLine> = fields<JournalLine>(
  { time, text },
  {
    action: oneOf('change', 'join', 'leave', 'close-target', 'remap', 'close'),
    error: fields<JournalError>({ message: text }, { code }),
    dma: list(text),
    delta,
    bar,
  },
);
