/**
 * What the demo prints.
 */
import type { MemorySnapshot } from '../../ts/index.ts';

let steps = 0;

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

export function step(what: string, outcome: string): void {
  console.log(`${++steps}. ${what}: ${outcome}`);
}

export function note(outcome: string): void {
  console.log(`   ${outcome}`);
}

/** A row for each sub-mapping, a column for each target. */
export function whoMapsWhat({ flat, targets }: MemorySnapshot): void {
  console.log('\nWho maps what:');
  console.table(
    Object.fromEntries(
      flat.map(({ start, end, region }) => [
        `${start}..${end}`,
        {
          region,
          ...Object.fromEntries(
            targets.map(({ name, mappings }) => [
              name,
              mappings.find((mapping) => mapping.start === start)?.state ?? '-',
            ]),
          ),
        },
      ]),
    ),
  );
}
