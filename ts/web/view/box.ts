/**
 * The boxes and columns of the map as data.
 */
import type { StatusSnapshot, SubMappingSnapshot } from '../../guest/inspect.ts';
import { roundedSize } from '../../size.ts';

/** A box in a column: a range of addresses with a label. */
export interface Box {
  /** Identifies the same box at different moments. */
  readonly key: string;
  /** Index of its first part of the axis; `to` is the index after its last part. */
  readonly from: number;
  readonly to: number;
  /** Index of its lane, from the left. Overlapping boxes have different lanes. */
  readonly lane: number;
  readonly label: string;
  /** CSS classes of the box. */
  readonly look: string;
  /** Its first address. */
  readonly start: string;
  /** Facts for the panel, in order. */
  readonly facts: readonly Fact[];
}

/** A named fact of a box. */
export type Fact = readonly [name: string, value: string];

/** A column of the map. */
export interface Column {
  readonly title: string;
  readonly note: string;
  readonly lanes: number;
  readonly boxes: readonly Box[];
}

/** Returns the facts that sub-mappings and mappings of targets have in common. */
export function commonFacts({ start, end, region, kind }: SubMappingSnapshot | StatusSnapshot): Fact[] {
  return [...rangeFacts(start, end), ['Region', `${region} (${kindName(kind)})`]];
}

/** Returns the facts of a range. */
export function rangeFacts(start: string, end: string): Fact[] {
  return [
    ['Addresses', `${start}..${end}`],
    ['Length', roundedSize(BigInt(end) - BigInt(start))],
  ];
}

/** Names a kind of memory. */
export function kindName(kind: SubMappingSnapshot['kind']): string {
  return kind === 'ram' ? 'RAM' : 'device memory';
}

/** Appends a number to a key, to make it unique. */
export function numbered(seen: Map<string, number>, key: string): string {
  const number = seen.get(key) ?? 0;
  seen.set(key, number + 1);
  return `${key} ${number}`;
}
