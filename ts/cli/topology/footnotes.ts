/**
 * Collects the texts of a matrix without repetition. Numbers the reasons, and lists prerequisites, notes and bypasses.
 */
import type { IommuBypass, PeerCell, PeerMatrix } from '../../host.ts';

/** The reasons that some cells have in common. */
export interface Footnote {
  /** Number of the footnote, from 1. */
  readonly number: number;
  readonly text: string;
}

/** Numbers the reasons of cells. */
export class Footnotes {
  readonly #numbers = new Map<string, number>();
  readonly #byCell = new Map<PeerCell, number>();

  constructor({ cells }: PeerMatrix) {
    for (const cell of cells) this.of(cell);
  }

  /** Returns the number of the reasons of a cell. */
  of(cell: PeerCell): number {
    const known = this.#byCell.get(cell);
    if (known !== undefined) return known;
    const text = cell.reasons.map((reason) => reason.text).join('; ');
    const number = this.#numbers.get(text) ?? this.#numbers.size + 1;
    this.#numbers.set(text, number);
    this.#byCell.set(cell, number);
    return number;
  }

  /** All footnotes, in the order of their numbers. */
  get all(): Footnote[] {
    return [...this.#numbers].map(([text, number]) => ({ number, text }));
  }
}

/** Returns the texts of all prerequisites, without duplicates. */
export function allPrerequisites({ cells }: PeerMatrix): string[] {
  const texts = new Set<string>();
  for (const { prerequisites } of cells) for (const { text } of prerequisites) texts.add(text);
  return [...texts];
}

/** Returns the texts of all notes, without duplicates. Leaves out bypasses, which {@link bypassTexts} returns. */
export function allNotes({ cells }: PeerMatrix): string[] {
  const texts = new Set<string>();
  for (const { notes } of cells) for (const { code, text } of notes) if (code !== 'bypass') texts.add(text);
  return [...texts];
}

/** Returns, for each initiator, the addresses that bypass the IOMMU. Merges adjacent ranges. */
export function bypassTexts({ bypasses }: PeerMatrix): string[] {
  const lists = new Map<string, string[]>();
  let last: IommuBypass | undefined;
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

function same(a: IommuBypass, b: IommuBypass): boolean {
  return a.initiator === b.initiator && a.neighbour === b.neighbour && a.certain === b.certain;
}

function byPlace(a: IommuBypass, b: IommuBypass): number {
  const places = [a, b].map(({ initiator, neighbour }) => `${initiator} ${neighbour}`) as [string, string];
  if (places[0] !== places[1]) return places[0] < places[1] ? -1 : 1;
  return a.start < b.start ? -1 : a.start > b.start ? 1 : 0;
}
