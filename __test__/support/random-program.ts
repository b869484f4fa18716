/**
 * Programs of random operations on guest memory, which print as one line for each operation and shrink.
 */
import fc from 'fast-check';

/** Pages of the address space. */
export const SIZE = 32;
/** Pages of each file. */
export const FILE_PAGES = 12;
export const FILES = 3;

/** `region` counts modulo the regions there are; `at`, `count` and the like are cut to what is there. */
export type Operation =
  | {
      readonly op: 'addRegion';
      readonly at: number;
      readonly count: number;
      readonly priority: number;
      readonly kind: 'ram' | 'device';
    }
  | { readonly op: 'newDeviceMemory'; readonly count: number }
  | {
      readonly op: 'addMapping';
      readonly region: number;
      readonly at: number;
      readonly count: number;
      /** `FILES` is private memory. */
      readonly file: number;
      readonly page: number;
      readonly writable: boolean;
    }
  | { readonly op: 'removeMappings'; readonly region: number; readonly at: number; readonly count: number }
  | { readonly op: 'map'; readonly region: number; readonly gpa: number; readonly writable: boolean }
  | { readonly op: 'unmap'; readonly region: number }
  | { readonly op: 'remove'; readonly region: number }
  | { readonly op: 'third target comes or goes' }
  | { readonly op: 'write'; readonly page: number; readonly byte: number; readonly by: 'vmm' | 'device' };

export interface Step {
  readonly operation: Operation;
  /** The call of that kind that the picky target refuses in this step, counted from 0. */
  readonly refuse: { readonly op: 'map' | 'unmap'; readonly call: number } | undefined;
}

const region = fc.nat(7);
const at = fc.nat(SIZE - 1);
const count = fc.integer({ min: 1, max: 10 });
const often = fc.integer({ min: 0, max: 3 }).map((n) => n > 0);

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('addRegion' as const),
      at,
      count,
      priority: fc.nat(2),
      kind: fc.constantFrom('ram' as const, 'device' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('newDeviceMemory' as const), count }) },
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant('addMapping' as const),
      region,
      at: fc.nat(9),
      count,
      file: fc.nat(FILES),
      page: fc.nat(FILE_PAGES - 1),
      writable: often,
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('removeMappings' as const), region, at: fc.nat(9), count }) },
  { weight: 8, arbitrary: fc.record({ op: fc.constant('map' as const), region, gpa: at, writable: often }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('unmap' as const), region }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('remove' as const), region }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('third target comes or goes' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('write' as const),
      page: at,
      byte: fc.integer({ min: 1, max: 255 }),
      by: fc.constantFrom('vmm' as const, 'device' as const),
    }),
  },
);

/** A program of nearly `length` steps, which shrinks by leaving steps out. */
export function program(length: number): fc.Arbitrary<Program> {
  const refusal = fc.record({ op: fc.constantFrom('map' as const, 'unmap' as const), call: fc.nat(3) });
  const step = fc.record({ operation, refuse: fc.option(refusal, { nil: undefined, freq: 4 }) });
  const steps = fc.array(fc.option(step, { nil: undefined, freq: 50 }), { minLength: length, maxLength: length });
  return steps.map((all) => new Program(all.filter((one) => one !== undefined)));
}

export class Program {
  readonly steps: readonly Step[];

  constructor(steps: readonly Step[]) {
    this.steps = steps;
  }

  /** What fast-check prints. */
  [fc.toStringMethod](): string {
    return this.steps.map((step, index) => `\n  ${index}: ${describe(step)}`).join('');
  }
}

export function describe({ operation, refuse }: Step): string {
  const { op, ...details } = operation;
  const refusing = refuse === undefined ? '' : ` while ${refuse.op} call ${refuse.call} is refused`;
  const list = Object.entries(details).map(([name, value]) => `${name}=${value}`);
  return `${[op, ...list].join(' ')}${refusing}`;
}
