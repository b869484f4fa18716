/**
 * Runs the operations of a random program with their faults, and checks the outcome of each.
 */
import { GuestMemory, PeerDmaError } from '../../../ts/index.ts';
import { SimulatedIommu } from '../../../ts/testing.ts';
import { type ModelFlat, sameCell } from '../memory-model.ts';
import { PAGE, PAGE_BYTES } from '../pages.ts';
import { type CastName, codeOf } from './cast.ts';
import { Comparison } from './comparison.ts';
import { dueOf, overlap } from './expectation.ts';
import { interposeNative, rangesOf } from '../native-faults.ts';
import type { Fault, Hit } from './faults.ts';
import { Change, type Operation, type Pages, SIZE } from './operation.ts';
import { same } from './map-comparison.ts';
import { Register, TargetClosed, Unregister } from './registrations.ts';
import { World } from './world.ts';

/** Totals over all programs. */
export interface Counts {
  programs: number;
  commands: number;
  operations: number;
  faults: number;
  hits: number;
  failures: number;
  undoFailures: number;
  quarantines: number;
  /** Commands that began while something was in quarantine. */
  underQuarantine: number;
  refusals: number;
  retries: number;
}

export function noCounts(): Counts {
  return {
    programs: 0,
    commands: 0,
    operations: 0,
    faults: 0,
    hits: 0,
    failures: 0,
    undoFailures: 0,
    quarantines: 0,
    underQuarantine: 0,
    refusals: 0,
    retries: 0,
  };
}

export class Bench {
  readonly world: World;
  readonly counts: Counts;
  readonly #comparison: Comparison;
  /** Whether this process may still map memory that a rollback could not unmap. */
  #stale = false;

  private constructor(world: World, counts: Counts) {
    this.world = world;
    this.counts = counts;
    this.#comparison = new Comparison(world);
    interposeNative((op, args) => world.faults.native(op, pagesOfCall(world, args)));
  }

  static async create(counts: Counts): Promise<Bench> {
    return new Bench(new World({ memory: await GuestMemory.create({ addressWidth: 17 }), base: 0n }), counts);
  }

  /**
   * Calls the operations without waiting between, with faults, and compares everything.
   *
   * @returns whether a fault made one of them fail
   */
  async run(operations: readonly Operation[], faults: readonly Fault[]): Promise<boolean> {
    const { world, counts } = this;
    counts.operations += operations.length;
    counts.faults += faults.length;
    const before = this.#comparison.quarantine.length;
    if (before > 0) counts.underQuarantine++;
    world.faults.set(faults);
    const outcomes = await Promise.all(
      operations.map((operation) =>
        operation.start(world).then(
          () => undefined,
          (error: unknown) => ({ error }),
        ),
      ),
    );
    const hits = world.faults.clear();
    counts.hits += hits.length;
    const attempts: ModelFlat[] = [world.flat()];
    const settled: Pages[] = [];
    let undone = false;
    let excused = false;
    for (const [index, operation] of operations.entries()) {
      const outcome = outcomes[index];
      const code = outcome === undefined ? 'OK' : codeOf(outcome.error);
      if (code === 'ERR_ROLLBACK_FAILED' || (code !== 'OK' && operation instanceof TargetClosed)) undone = true;
      if (code === 'ERR_RANGE_QUARANTINED') counts.refusals++;
      if (code === 'ERR_ROLLBACK_FAILED') counts.undoFailures++;
      if (operations.length === 1 || hits.length === 0) this.#judge(operation, code, outcome?.error, hits, index);
      else if (this.#judgeLoosely(operation, code, outcome?.error, hits)) excused = true;
      if (operation instanceof Change) {
        const effect = operation.effect(world.model);
        if (effect === undefined) continue;
        attempts.push(effect.next.flat(SIZE));
        if (code !== 'OK') continue;
        const flat = world.flat();
        world.model = effect.next;
        this.#cut(flat);
        settled.push(...effect.touched);
      } else {
        this.#follow(operation, code);
      }
    }
    const serious = operations.length > 1 && hits.some(({ op }) => op === 'unmap') && !excused;
    if (serious) throw new Error('an unmap was refused, and every call succeeded');
    const failed = hits.length > 0 && outcomes.some((outcome) => outcome !== undefined);
    if (failed) counts.failures++;
    if (undone && hits.some(({ on }) => on === 'native')) this.#stale = true;
    // A later call may have changed the outcome of an earlier one.
    const certain = operations.length === 1 || hits.length === 0 ? settled : [];
    this.#comparison.compare({ hits, attempts, undone, settled: certain });
    counts.quarantines += Math.max(0, this.#comparison.quarantine.length - before);
    return failed;
  }

  /** Fills a page as the VMM or as a device, or checks that the page cannot be reached. */
  write(page: number, byte: number, by: CastName | 'vmm'): void {
    const { world } = this;
    const bytes = new Uint8Array(PAGE_BYTES).fill(byte);
    if (by === 'vmm') {
      const cell = world.flat()[page];
      let code = 'OK';
      try {
        world.memory.write(world.range({ at: page, count: 1 }).start, bytes);
      } catch (error) {
        code = codeOf(error);
      }
      same(`the VMM's write to page ${page}`, code, cell === undefined ? 'ERR_NOT_MAPPED' : 'OK');
      if (cell !== undefined) world.contents.fill(cell, byte);
    } else {
      const way = this.#comparison.writableAt(by, page);
      if (way === undefined) return;
      const { request, offset, cell } = way;
      const target = world.cast[by];
      if (target instanceof SimulatedIommu) target.write(request.range.start + offset, bytes);
      else if (request.hostMemory === undefined) return;
      else request.hostMemory.write(offset, bytes);
      world.contents.fill(cell, byte);
    }
    this.#comparison.compare({ hits: [], attempts: [], undone: false, settled: [] });
  }

  /** Closes the targets that keep mappings, then everything, and checks that nothing is left. */
  async close(): Promise<void> {
    const { world } = this;
    const { memory } = world;
    const kept = new Set(memory.inspect().quarantine.map(({ target }) => target));
    if (kept.size > 0) {
      const refused = await memory.close().then(() => 'OK', codeOf);
      same('closing with something in quarantine', refused, 'ERR_UNMAP_FAILED');
      same(
        'the quarantine after that',
        [...new Set(memory.inspect().quarantine.map(({ target }) => target))].join(),
        [...kept].join(),
      );
    }
    for (const name of kept) await new TargetClosed(name as CastName).start(world);
    await memory.close();
    const { regions, flat, targets, quarantine } = memory.inspect();
    same('what is left after close', JSON.stringify([regions, flat, targets, quarantine]), '[[],[],[],[]]');
    for (const [name, target] of Object.entries(world.cast)) {
      same(`what "${name}" holds after close`, target.held().length, 0);
      same(`the contract with "${name}"`, target.breaches.join('; '), '');
    }
    same(
      'a change after close',
      await memory.regions
        .addRegion({ name: 'late', range: world.range({ at: 0, count: 1 }) })
        .then(() => 'OK', codeOf),
      'ERR_CLOSED',
    );
    world.closeFiles();
  }

  /** Releases everything without checks, after a program that failed. */
  async releaseUnchecked(): Promise<void> {
    this.world.faults.clear();
    for (const target of Object.values(this.world.cast)) {
      target.closeWithMappings();
      await this.world.memory.dmaMappers.targetClosed(target).catch(() => {});
    }
    await this.world.memory.close().catch(() => {});
    this.world.closeFiles();
  }

  #judge(operation: Operation, code: string, error: unknown, hits: readonly Hit[], index: number): void {
    const { model, members, cast } = this.world;
    const { quarantine, subs } = this.#comparison;
    const situation = { model, members, cast, quarantine, subs, stale: this.#stale };
    const due = dueOf(operation, situation, hits);
    // After the first of several calls the cuts of memory are not known, and so neither the ranges that quarantine
    // blocks.
    const vague = index > 0 && quarantine.length > 0 && code === 'ERR_RANGE_QUARANTINED';
    if (!due.codes.includes(code) && !vague) {
      throw new Error(`${code} instead of ${due.codes.join(' or ')}`, { cause: error });
    }
    if (!(error instanceof PeerDmaError)) return;
    if (due.target !== undefined) same('the target that the error names', error.target, due.target);
    if (due.target !== undefined && error.range === undefined)
      throw new Error('the error names no range', { cause: error });
  }

  /**
   * With faults and several calls it is unknown which call met which fault.
   *
   * @returns whether it failed for a fault
   */
  #judgeLoosely(operation: Operation, code: string, error: unknown, hits: readonly Hit[]): boolean {
    if (code === 'OK') return false;
    const { model, members, cast } = this.world;
    const { quarantine, subs } = this.#comparison;
    const regular = dueOf(operation, { model, members, cast, quarantine, subs, stale: this.#stale }, []);
    const codes = [...hits.map((hit) => hit.code), 'ERR_ROLLBACK_FAILED', 'ERR_UNMAP_FAILED'];
    if (regular.codes.includes(code)) return codes.includes(code);
    const known = codes.includes(code) || (code === 'ERR_RANGE_QUARANTINED' && hits.some(({ op }) => op !== 'map'));
    if (!known) throw new Error(`${code} instead of one of ${codes.join()}`, { cause: error });
    return code !== 'ERR_RANGE_QUARANTINED';
  }

  /** Records the effect of an operation on the registered targets. */
  #follow(operation: Operation, code: string): void {
    const { members, memory } = this.world;
    if (operation instanceof Register) {
      const { target, policy } = operation;
      if (code === 'OK') members.set(target, { policy, joined: true });
      else if (!members.has(target) && memory.inspect().quarantine.some((kept) => kept.target === target)) {
        members.set(target, { policy, joined: false });
      }
    } else if (operation instanceof Unregister) {
      const member = members.get(operation.target);
      if (member === undefined) return;
      if (code === 'OK') this.#forget(operation.target);
      else members.set(operation.target, { ...member, joined: false });
    } else if (operation instanceof TargetClosed) {
      this.#forget(operation.target);
    }
  }

  #forget(target: CastName): void {
    this.world.members.delete(target);
    this.world.handles.delete(target);
  }

  /** The remaining sub-mappings, for the next of several operations; new ones count as single pages. */
  #cut(before: ModelFlat): void {
    const flat = this.world.flat();
    const left = this.#comparison.subs.filter(({ at, count }) => {
      for (let page = at; page < at + count; page++) if (!sameCell(before[page], flat[page])) return false;
      return true;
    });
    const fresh = flat.flatMap((cell, at) => {
      const page = { at, count: 1 };
      return cell === undefined || left.some((sub) => overlap(sub, page)) ? [] : [page];
    });
    this.#comparison.subs = [...left, ...fresh];
  }
}

function pagesOfCall(world: World, args: readonly unknown[]): Pages[] {
  return rangesOf(args).map(([start, length]) => ({ at: world.pageOf(start), count: Number(length / PAGE) }));
}
