/**
 * The random programs of the model-based test, without faults, on real IOMMUs. DMA at the edges of every mapping must
 * find the pages of the model. Two devices in separate containers probe; the memory includes a BAR.
 */
import fc from 'fast-check';
import type { GuestMemory, VfioRegion } from '../../ts/index.ts';
import { type ModelCell, PRIVATE } from '../support/memory-model.ts';
import { at, PAGE, PAGE_BYTES } from '../support/pages.ts';
import { addRegion, addWindow, CHANGES } from '../support/program/arbitrary.ts';
import { Add, AddMapping, Place, Remove } from '../support/program/changes.ts';
import { ALL_DOMAINS } from '../support/program/domains.ts';
import { EduProbe, SIDE, UNTOUCHED } from '../support/program/edu-probe.ts';
import { type Change, FILE_PAGES, FILES, SIZE } from '../support/program/operation.ts';
import { World } from '../support/program/world.ts';
import { seedOf } from '../support/seed.ts';
import { testWith } from './support/devices.ts';
import { GUEST_NUMBER } from './support/repetitions.ts';
import { peerBar, RAM_START, rig } from './support/rig.ts';
import { newManager } from './support/backend.ts';

/** In each guest; all guests together run four times as many. */
const PROGRAMS = 8;
const LENGTH = { minLength: 20, maxLength: 40, size: 'max' } as const;
/** The address of page 0 of the programs. */
const BASE = 0x4000_0000n;
/** The number of the file that is a BAR. */
const BAR = FILES;
/** A byte value that no page is filled with. */
const MARKS = [0xa1, 0xa2, 0xa3] as const;

const ofBar = fc.record({ file: fc.constant(BAR), page: fc.nat(FILE_PAGES - 1), writable: fc.boolean() });
const window = fc.constantFrom('w0', 'w1', 'w2');
const where = fc.record({ at: fc.nat(9), count: fc.integer({ min: 1, max: 10 }) });
const page = fc.nat(SIZE - 1);

function placed(added: fc.Arbitrary<Add>): fc.Arbitrary<readonly Change[]> {
  return fc
    .tuple(added, page, fc.boolean())
    .map(([add, to, writable]) => [add, new Place(add.name, to, writable)] as const);
}

/** Each program begins with a BAR in the memory map. */
const program = fc
  .tuple(
    page,
    fc.array(
      fc.oneof(
        { weight: 6, arbitrary: placed(addRegion()) },
        { weight: 3, arbitrary: placed(addWindow()) },
        { weight: 2, arbitrary: placed(addWindow(ofBar)) },
        {
          weight: 4,
          arbitrary: fc.tuple(window, where, ofBar).map(([name, range, what]) => [new AddMapping(name, range, what)]),
        },
        ...CHANGES.map(({ weight, arbitrary }) => ({ weight, arbitrary: arbitrary.map((one) => [one]) })),
      ),
      LENGTH,
    ),
  )
  .map(([to, rest]) => {
    const bar = new Add('w0', 8, { file: BAR, page: 1, writable: true });
    return new Program([bar, new Place('w0', to, true), ...rest.flat()]);
  });

/**
 * Found by such a program: private memory that was never written and is read-only for devices. Linux 6.1 would pin the
 * zero page, and the device would read zeros for ever.
 */
const ZERO_PAGE = (): Program =>
  new Program([new Add('w0', 2, { file: 'private', page: 0, writable: false }), new Place('w0', 3, true)]);

class Program {
  readonly changes: readonly Change[];
  /** The number of commands that had an effect. */
  readonly done: Change[] = [];

  constructor(changes: readonly Change[]) {
    this.changes = changes;
  }

  /** The text that fast-check prints. */
  [fc.toStringMethod](): string {
    return this.done.map((change) => `\n  ${String(change)}`).join('');
  }
}

/** The world of one program, and the real devices that probe it. */
class Bench {
  readonly world: World;
  readonly #bar: VfioRegion;
  readonly #probes: readonly EduProbe[];
  readonly counts: { commands: number; reads: number; writes: number };

  constructor(memory: GuestMemory, bar: VfioRegion, probes: readonly EduProbe[], counts: Bench['counts']) {
    this.world = new World({ memory, base: BASE, more: [(first) => bar.backing(at(first))] });
    this.#bar = bar;
    this.#probes = probes;
    this.counts = counts;
    for (let n = 0; n < FILE_PAGES; n++) this.#fill({ store: BAR, page: n }, 0x70 + n);
  }

  /** @returns whether the command had an effect */
  async run(change: Change): Promise<boolean> {
    const { world } = this;
    if (!change.possible(world)) return false;
    const effect = change.effect(world.model);
    if (effect === undefined) return false; // of a region that has been removed, which other tests cover
    await change.start(world);
    world.model = effect.next;
    this.counts.commands++;
    return true;
  }

  /** Probes both ends of every mapping by DMA, inside and outside. */
  async probe(round: number): Promise<void> {
    const flat = this.world.flat();
    for (const [n, cell] of flat.entries()) {
      if (cell !== undefined && this.world.contents.byte(cell) === 0) this.#fill(cell, 0x80 + (cell.store % 0x10), n);
    }
    const boundaries = this.#boundaries();
    // The devices alternate: each probes one half of the boundaries now, and the other half the next time.
    const shares = this.#probes.map((_, probe) =>
      boundaries.filter((_boundary, index) => (index + round) % this.#probes.length === probe),
    );
    await Promise.all(this.#probes.map((probe, index) => this.#read(probe, shares[index] ?? [])));
    await Promise.all(this.#probes.map((probe, index) => this.#write(probe, shares[index] ?? [], MARKS[index] ?? 0)));
    this.#compareStores(boundaries);
  }

  async close(): Promise<void> {
    for (const name of this.world.model.regions.keys()) await this.run(new Remove(name));
    await this.probe(0);
    this.world.closeFiles();
  }

  /** The pages at which a mapping begins or ends; without a mapping, a page without memory. */
  #boundaries(): number[] {
    const found = new Set<number>([SIZE >> 1]);
    for (const { start, end } of this.world.memory.inspect().flat) {
      if (BigInt(start) < BASE) continue; // the RAM that the probes use
      found.add(this.world.pageOf(BigInt(start))).add(this.world.pageOf(BigInt(end)));
    }
    return [...found].sort((a, b) => a - b);
  }

  async #read(probe: EduProbe, boundaries: readonly number[]): Promise<void> {
    const flat = this.world.flat();
    const sides = await probe.read(boundaries.map((boundary) => BASE + at(boundary)));
    for (const [index, boundary] of boundaries.entries()) {
      const { below, above } = sides[index] ?? {};
      this.#found(boundary - 1, flat[boundary - 1], below);
      this.#found(boundary, flat[boundary], above);
    }
  }

  #found(where: number, cell: ModelCell | undefined, bytes: Uint8Array = new Uint8Array()): void {
    this.counts.reads++;
    const due = cell === undefined ? [0, UNTOUCHED] : [this.world.contents.byte(cell)];
    if (bytes.length === SIDE && bytes.every((byte) => due.includes(byte))) return;
    throw new Error(`DMA from page ${where} brought ${[...bytes].join()} instead of ${due.join(' or ')}`);
  }

  /** Writes around boundaries, and checks that exactly the permitted bytes arrive. */
  async #write(probe: EduProbe, boundaries: readonly number[], mark: number): Promise<void> {
    const flat = this.world.flat();
    await probe.write(
      boundaries.map((boundary) => BASE + at(boundary)),
      mark,
    );
    for (const boundary of boundaries) {
      this.#arrived(boundary - 1, flat, PAGE_BYTES - SIDE);
      this.#arrived(boundary, flat, 0);
    }
  }

  #arrived(where: number, flat: readonly (ModelCell | undefined)[], offset: number): void {
    const cell = flat[where];
    this.counts.writes++;
    if (cell === undefined) return; // the final comparison of all memory finds bytes that arrived elsewhere
    const bytes = this.#bytes(cell, where, offset, SIDE);
    // Other addresses may map the same page, and another device may have written there.
    const marked = bytes.every((byte) => (MARKS as readonly number[]).includes(byte));
    const shared = flat.some(
      (other, n) => n !== where && other?.store === cell.store && other.page === cell.page && other.writable,
    );
    const untouched = bytes.every((byte) => byte === this.world.contents.byte(cell));
    if (cell.writable ? marked : untouched || (shared && marked)) return;
    throw new Error(`DMA to page ${where}, ${cell.writable ? 'writable' : 'read-only'}, left ${[...bytes].join()}`);
  }

  /** Restores the probed bytes after checking that no others have changed. */
  #compareStores(boundaries: readonly number[]): void {
    const flat = this.world.flat();
    const written = new Map<string, Set<'first' | 'last'>>();
    for (const boundary of boundaries) {
      for (const [cell, edge] of [
        [flat[boundary - 1], 'last'],
        [flat[boundary], 'first'],
      ] as const) {
        if (cell?.writable !== true) continue;
        const key = `${cell.store} ${cell.page}`;
        written.set(key, (written.get(key) ?? new Set()).add(edge));
      }
    }
    const look = (cell: Pick<ModelCell, 'store' | 'page'>, where?: number) => {
      const byte = this.world.contents.byte({ ...cell, writable: true });
      const bytes = this.#bytes(cell, where, 0, PAGE_BYTES);
      const edges = written.get(`${cell.store} ${cell.page}`);
      for (const [n, is] of bytes.entries()) {
        const may = (n < SIDE && edges?.has('first')) || (n >= PAGE_BYTES - SIDE && edges?.has('last'));
        if (may ? is !== byte && (MARKS as readonly number[]).includes(is) : is === byte) continue;
        throw new Error(`page ${cell.page} of file ${cell.store} has ${is} at ${n} instead of ${byte}`);
      }
      if (edges !== undefined) this.#fill(cell, byte, where);
    };
    for (let store = 0; store <= BAR; store++) for (let n = 0; n < FILE_PAGES; n++) look({ store, page: n });
    for (const [n, cell] of flat.entries()) if (cell !== undefined && cell.store >= PRIVATE) look(cell, n);
  }

  /** @param where an address that maps it, needed for private memory */
  #bytes(
    { store, page: n }: Pick<ModelCell, 'store' | 'page'>,
    where: number | undefined,
    offset: number,
    length: number,
  ): Uint8Array {
    if (store === BAR) return this.#bar.read(at(n) + BigInt(offset), length);
    const file = this.world.files[store];
    if (file !== undefined) return file.read(at(n) + BigInt(offset), length);
    return this.world.memory.read(BASE + at(where ?? 0) + BigInt(offset), length);
  }

  #fill({ store, page: n }: Pick<ModelCell, 'store' | 'page'>, byte: number, where = 0): void {
    const bytes = new Uint8Array(PAGE_BYTES).fill(byte);
    this.world.contents.fill({ store, page: n }, byte);
    if (store === BAR) this.#bar.write(at(n), bytes);
    else if (store < FILES) this.world.files[store]?.write(at(n), bytes);
    else this.world.memory.write(BASE + at(where), bytes);
  }
}

testWith(
  { edu: 2, ivshmem: 1 },
  'after random programs, DMA at every edge finds the memory of the model',
  async (t, { edu: [first = '', second = ''], ivshmem: [peer = ''] }) => {
    t.timeout(600_000);
    const seed = seedOf(t, GUEST_NUMBER);
    const { memory, manager } = await rig(t);
    const inAll = { peerToPeerDomains: ALL_DOMAINS };
    const other = newManager(memory, { peerToPeer: 'required' });
    t.teardown(() => other.close());
    const bar = peerBar(await manager.open(peer, inAll));
    const probes = [
      new EduProbe(await manager.open(first, inAll), memory, RAM_START + PAGE),
      new EduProbe(await other.open(second, inAll), memory, RAM_START + 2n * PAGE),
    ];
    t.is(manager.inspect().containers.length + other.inspect().containers.length, 2, 'two containers');
    const counts = { commands: 0, reads: 0, writes: 0 };
    const began = Date.now();
    let programs = 0;
    await fc.assert(
      fc.asyncProperty(program, async ({ changes, done }: Program) => {
        const bench = new Bench(memory, bar, probes, counts);
        for (const change of changes) {
          if (!(await bench.run(change))) continue;
          done.push(change);
          if (done.length % 14 === 0) await bench.probe(programs + done.length);
        }
        await bench.probe(programs);
        await bench.close();
        programs++;
      }),
      { seed, numRuns: PROGRAMS, examples: [[ZERO_PAGE()]], endOnFailure: true, includeErrorInReport: true },
    );
    const transfers = probes.reduce((sum, probe) => sum + probe.transfers, 0);
    t.log(
      `${programs} programs, ${counts.commands} commands, ${counts.reads} pages read and ${counts.writes} written by DMA in ${transfers} transfers, ${((Date.now() - began) / 1000).toFixed(1)} s`,
    );
    t.is(programs, PROGRAMS);
  },
);
