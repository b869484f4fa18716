/**
 * `peerdma/inspect`: snapshots of guest memory, explanations of addresses, and journals of changes. They need no VMM: a
 * snapshot and a journal can be those of another process.
 */
export type {
  MappingStatusSnapshot,
  MemorySnapshot,
  RangeSnapshot,
  RegionSnapshot,
  SubMappingSnapshot,
  TargetSnapshot,
} from './guest/inspect.ts';
export { explain, type Explanation, type MemoryAtAddress } from './guest/explain.ts';
export type { RegionAtAddress } from './guest/layers.ts';
export type { TargetAtAddress } from './guest/target-view.ts';
export { recordJournal, type FileUrl, type Journal } from './journal/journal.ts';
export { readJournal, type JournalEntry } from './journal/read.ts';
export type { ListChange, RegionDelta, SnapshotDelta, TargetDelta } from './journal/delta.ts';
export type { JournalError, JournalLine, JournalStart } from './journal/lines.ts';
