/**
 * Prints the steps of the demo and of the examples.
 */
import { Console } from 'node:console';
import type { MemorySnapshot } from '../../index.ts';

/** Prints numbered steps, notes and a table of mappings. */
export interface Report {
  step(this: void, what: string, outcome: string): void;
  note(this: void, outcome: string): void;
  /** Prints a table with a row for each sub-mapping and a column for each target. */
  mappingTable(this: void, snapshot: MemorySnapshot): void;
}

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

export function reportTo(stream: NodeJS.WritableStream): Report {
  const { log, table } = new Console(stream);
  let steps = 0;
  return {
    step: (what, outcome) => log(`${++steps}. ${what}: ${outcome}`),
    note: (outcome) => log(`   ${outcome}`),
    mappingTable: (snapshot) => {
      log('\nMappings of each target:');
      table(rows(snapshot));
    },
  };
}

function rows({ flat, targets }: MemorySnapshot): Record<string, Record<string, string>> {
  return Object.fromEntries(
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
  );
}
