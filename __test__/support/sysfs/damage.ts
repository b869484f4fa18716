/**
 * Folders with damage that no kernel causes, for readers that must survive it.
 */
import type { ExecutionContext } from 'ava';
import fc from 'fast-check';

/** Removed lines, and changed characters of values. */
export interface Damage {
  readonly losses: readonly number[];
  readonly changes: readonly (readonly [place: number, character: number])[];
}

export function damaged(text: string, { losses, changes }: Damage): string {
  const lines = text.split('\n');
  const values = [...lines.keys()].filter((index) => / (?:=|->) \S/.test(lines[index] ?? ''));
  for (const [place, character] of changes) {
    const index = values[place % values.length] ?? 0;
    const [, start = '', value = ''] = /^(\S+ (?:=|->) )(.*)$/.exec(lines[index] ?? '') ?? [];
    const cut = place % value.length;
    lines[index] = start + value.slice(0, cut) + String.fromCharCode(character) + value.slice(cut + 1);
  }
  const gone = new Set(losses.map((loss) => values[loss % values.length]));
  return lines.filter((_, index) => !gone.has(index)).join('\n');
}

export const damage: fc.Arbitrary<Damage> = fc.record({
  losses: fc.array(fc.nat(), { maxLength: 12 }),
  changes: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 32, max: 126 })), { maxLength: 12 }),
});

/** Calls `use` with each folder, and removes it: one test has many. */
export function untilDone<T>(call: (scope: ExecutionContext) => T): T {
  const cleanups: (() => void)[] = [];
  try {
    return call({ teardown: (each: () => void) => cleanups.push(each) } as unknown as ExecutionContext);
  } finally {
    for (const each of cleanups) each();
  }
}
