/**
 * What is said of more than one cell, once: reasons get numbers, and all else is listed without repetition.
 */
import type { Bypass, PeerCell, PeerMatrix } from '../../host/index.ts';

/** Reasons of some cells, in words. */
export interface Footnote {
  /** From 1. */
  readonly number: number;
  readonly text: string;
}

/** Numbers for the reasons of cells. */
export class Footnotes {
  readonly #numbers = new Map<string, number>();
  readonly #byCell = new Map<PeerCell, number>();

  constructor({ cells }: PeerMatrix) {
    for (const cell of cells) this.of(cell);
  }

  /** Number of a cell's reasons. */
  of(cell: PeerCell): number {
    const known = this.#byCell.get(cell);
    if (known !== undefined) return known;
    const text = cell.reasons.map((reason) => reason.text).join('; ');
    const number = this.#numbers.get(text) ?? this.#numbers.size + 1;
    this.#numbers.set(text, number);
    this.#byCell.set(cell, number);
    return number;
  }

  get all(): Footnote[] {
    return [...this.#numbers].map(([text, number]) => ({ number, text }));
  }
}

/** Texts of what cells need, each once. */
export function allPrerequisites({ cells }: PeerMatrix): string[] {
  const texts = new Set<string>();
  for (const { prerequisites } of cells) for (const { text } of prerequisites) texts.add(text);
  return [...texts];
}

/** Texts of what else there is to know, each once; where guest memory must not be is told by {@link bypassTexts}. */
export function allNotes({ cells }: PeerMatrix): string[] {
  const texts = new Set<string>();
  for (const { notes } of cells) for (const { code, text } of notes) if (code !== 'bypass') texts.add(text);
  return [...texts];
}

/** For each initiator, the addresses that don't come to the IOMMU; ranges that touch are one. */
export function bypassTexts({ bypasses }: PeerMatrix): string[] {
  const lists = new Map<string, string[]>();
  let last: Bypass | undefined;
  for (const bypass of bypasses.toSorted(byPlace)) {
    const { initiator, neighbour, start, certain } = bypass;
    const joined = last !== undefined && same(last, bypass) && last.end >= start ? last : undefined;
    const end = joined !== undefined && joined.end > bypass.end ? joined.end : bypass.end;
    const texts = lists.get(initiator) ?? [];
    if (joined !== undefined) texts.pop();
    const range = `0x${(joined ?? bypass).start.toString(16)}..0x${end.toString(16)}`;
    texts.push(`${range} ${certain ? 'is' : 'may be'} ${neighbour}`);
    lists.set(initiator, texts);
    last = { ...(joined ?? bypass), end };
  }
  return [...lists].map(([initiator, texts]) => `from ${initiator}: ${texts.join(', ')}`);
}

function same(a: Bypass, b: Bypass): boolean {
  return a.initiator === b.initiator && a.neighbour === b.neighbour && a.certain === b.certain;
}

function byPlace(a: Bypass, b: Bypass): number {
  const places = [a, b].map(({ initiator, neighbour }) => `${initiator} ${neighbour}`) as [string, string];
  if (places[0] !== places[1]) return places[0] < places[1] ? -1 : 1;
  return a.start < b.start ? -1 : a.start > b.start ? 1 : 0;
}
