/**
 * Random programs as fast-check runs and shrinks them: commands, each printed in one line.
 */
import type fc from 'fast-check';
import type { Bench } from './bench.ts';
import type { CastName } from './cast.ts';
import { type Add, Place } from './changes.ts';
import { describeFault, type Fault } from './faults.ts';
import type { Operation } from './operation.ts';

/** The commands' knowledge of a program. The real model is that of the bench, which observes the failures. */
export interface Course {
  readonly bench: Bench;
  /** Commands that have run. */
  ran: number;
}

type Command = fc.AsyncCommand<Course, Bench>;

/** Commands in a program, at most. */
export const MAX_COMMANDS = 60;

abstract class Line implements Command {
  check({ bench, ran }: Readonly<Course>): boolean {
    return ran < MAX_COMMANDS && this.possible(bench);
  }

  async run(course: Course, bench: Bench): Promise<void> {
    course.ran++;
    bench.counts.commands++;
    try {
      await this.act(bench);
    } catch (error) {
      throw new Error(`${this.text()}: ${chain(error)}`, { cause: error });
    }
  }

  toString(): string {
    return `\n  ${this.text()}`;
  }

  protected abstract possible(bench: Bench): boolean;
  protected abstract act(bench: Bench): Promise<void>;
  protected abstract text(): string;
}

/** Operations that are called without waiting for one another, and their faults. */
export class Call extends Line {
  readonly #operations: readonly Operation[];
  readonly #faults: readonly Fault[];
  /** Whether to repeat the operations without faults after a failure. */
  readonly #again: boolean;

  constructor(operations: readonly Operation[], faults: readonly Fault[], again: boolean) {
    super();
    this.#operations = operations;
    this.#faults = faults;
    this.#again = again;
  }

  protected possible({ world }: Bench): boolean {
    return this.#operations.every((operation) => operation.possible(world));
  }

  protected async act(bench: Bench): Promise<void> {
    const failed = await bench.run(this.#operations, this.#faults);
    if (!failed || !this.#again || !this.possible(bench)) return;
    bench.counts.retries++;
    await bench.run(this.#operations, []);
  }

  protected text(): string {
    const what = this.#operations.join(', and at once ');
    return `${what}${during(this.#faults)}${this.#faults.length > 0 && this.#again ? ', then again' : ''}`;
  }
}

/** A region or window is added with its contents, and then mapped. */
export class Populate extends Line {
  readonly #add: Add;
  readonly #place: Place;
  readonly #faults: readonly Fault[];

  constructor(add: Add, place: Place, faults: readonly Fault[]) {
    super();
    this.#add = add;
    this.#place = place;
    this.#faults = faults;
  }

  protected possible({ world }: Bench): boolean {
    return this.#add.possible(world);
  }

  protected async act(bench: Bench): Promise<void> {
    await bench.run([this.#add], []);
    await bench.run([this.#place], this.#faults);
  }

  protected text(): string {
    return `${this.#add}, then ${this.#place}${during(this.#faults)}`;
  }
}

/** Two windows swap addresses, as by a guest that sorts its BARs. */
export class Swap extends Line {
  readonly #names: readonly [string, string];
  readonly #faults: readonly Fault[];

  constructor(names: readonly [string, string], faults: readonly Fault[]) {
    super();
    this.#names = names;
    this.#faults = faults;
  }

  protected possible({ world }: Bench): boolean {
    return this.#names.every((name) => world.model.regions.get(name)?.at !== undefined);
  }

  protected async act(bench: Bench): Promise<void> {
    const [a, b] = this.#names;
    const to = (name: string): number => bench.world.model.region(name).at ?? 0;
    await bench.run([new Place(a, to(b), true), new Place(b, to(a), true)], this.#faults);
  }

  protected text(): string {
    return `swap ${this.#names.join(' and ')}${during(this.#faults)}`;
  }
}

/** Fills a page. */
export class Write extends Line {
  readonly #page: number;
  readonly #byte: number;
  readonly #by: CastName | 'vmm';

  constructor(page: number, byte: number, by: CastName | 'vmm') {
    super();
    this.#page = page;
    this.#byte = byte;
    this.#by = by;
  }

  protected possible({ world }: Bench): boolean {
    return this.#by === 'vmm' || world.members.has(this.#by);
  }

  protected async act(bench: Bench): Promise<void> {
    bench.write(this.#page, this.#byte, this.#by);
  }

  protected text(): string {
    return `${this.#by === 'vmm' ? 'the VMM' : `a device behind "${this.#by}"`} fills page ${this.#page} with ${this.#byte}`;
  }
}

function during(faults: readonly Fault[]): string {
  return faults.length === 0 ? '' : ` while ${faults.map(describeFault).join(' and ')}`;
}

/** The message with those of its causes, which fast-check does not print. */
function chain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} ← ${chain(error.cause)}`;
}
