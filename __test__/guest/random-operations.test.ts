// Ten thousand random operations, each compared with a model that looks at every page: after each, every target holds
// what the regions say, or, where the operation failed, just what it held before.
import fc from 'fast-check';
import test from 'ava';
import {
  type DeviceMemory,
  type DmaMapperHandle,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  type Region,
  SimulatedIommu,
} from '../../ts/index.ts';
import { type ModelCell, MemoryModel } from '../support/memory-model.ts';
import { at, PAGE, PAGE_BYTES, pages, tag } from '../support/pages.ts';
import {
  describe,
  FILE_PAGES,
  FILES,
  type Operation,
  program,
  type Program,
  SIZE,
  type Step,
} from '../support/random-program.ts';
import { ACCEPT, BatchRecordingTarget, mode, RecordingTarget, RefuseAt } from '../support/recording-target.ts';

const PROGRAMS = 200;
const STEPS = 55;
const OPERATIONS = 10_000;
/** The default priorities that a window of device memory and a region have are apart; here all shall meet. */
const DEVICE_PRIORITY = 0;

type Place =
  | { readonly region: Region; readonly at: number; readonly count: number; readonly window?: undefined }
  | { readonly window: DeviceMemory; readonly count: number; readonly region?: undefined };

/** Guest memory, its targets, and the model of what they should be. */
class Bench {
  readonly memory: GuestMemory;
  readonly files: MemoryFile[];
  readonly iommu = new SimulatedIommu();
  /** Needs no host memory, and is the one that refuses; device memory too is an error on it. */
  readonly picky = new RecordingTarget({ name: 'picky' });
  readonly third = new BatchRecordingTarget({ name: 'third', needsVa: true, async: true });
  #thirdHandle: DmaMapperHandle | undefined;
  #model = new MemoryModel();
  readonly #places: Place[] = [];
  #nextStore = FILES;

  private constructor(memory: GuestMemory) {
    this.memory = memory;
    this.files = Array.from({ length: FILES }, (_, index) => {
      const file = MemoryFile.create(at(FILE_PAGES), { name: `file${index}` });
      for (let page = 0; page < FILE_PAGES; page++) {
        const byte = tag(0x10 + index * 0x40, page);
        file.write(at(page), new Uint8Array(PAGE_BYTES).fill(byte));
        this.#model.fill({ store: index, page, writable: true }, byte);
      }
      return file;
    });
  }

  static async create(): Promise<Bench> {
    const bench = new Bench(await GuestMemory.create({ addressWidth: 17 }));
    await bench.memory.dmaMappers.addDmaMapper(bench.iommu);
    await bench.memory.dmaMappers.addDmaMapper(bench.picky, { peerToPeer: 'required' });
    return bench;
  }

  async close(): Promise<void> {
    await this.memory.close();
    for (const file of this.files) file.close();
  }

  /** Does one step and compares everything. @returns whether a refusal made it fail */
  async step({ operation, refuse }: Step): Promise<boolean> {
    const next = this.#model.clone();
    const refusal = refuse === undefined ? undefined : new RefuseAt(refuse.op, refuse.call);
    this.picky.judge = refusal?.judge ?? ACCEPT;
    const before = this.memory.inspect();
    let failure: unknown;
    try {
      await this.#do(operation, next);
    } catch (error) {
      failure = error;
    }
    this.picky.judge = ACCEPT;
    const refused = refusal?.hit ?? false;
    if (refused !== (failure !== undefined)) {
      throw new Error(refused ? 'a refusal went unnoticed' : 'failed for no reason', { cause: failure });
    }
    if (refused) {
      const code = refuse?.op === 'map' ? 'ERR_MAP_FAILED' : 'ERR_UNMAP_FAILED';
      if (!(failure instanceof PeerDmaError) || failure.code !== code || failure.target !== 'picky') {
        throw new Error('not the error that was due', { cause: failure });
      }
      const after = this.memory.inspect();
      same('regions after a failure', JSON.stringify(after.regions), JSON.stringify(before.regions));
      same('flat map after a failure', JSON.stringify(after.flat), JSON.stringify(before.flat));
      same('quarantine', after.quarantine.length, refuse?.op === 'map' ? 0 : 1);
    } else {
      this.#model = next;
    }
    this.#compare();
    if (refused && refuse?.op === 'unmap') {
      await this.#replacePicky();
      this.#compare();
    }
    return refused;
  }

  /** Closes the picky target, which ends the quarantine, and registers it anew. */
  async #replacePicky(): Promise<void> {
    this.picky.loseAll();
    await this.memory.dmaMappers.targetClosed(this.picky);
    same('quarantine of a closed target', this.memory.inspect().quarantine.length, 0);
    await this.memory.dmaMappers.addDmaMapper(this.picky, { peerToPeer: 'required' });
  }

  async #do(operation: Operation, next: MemoryModel): Promise<void> {
    switch (operation.op) {
      case 'addRegion': {
        const { at: first, priority, kind } = operation;
        const count = Math.min(operation.count, SIZE - first);
        const name = `r${this.#places.length}`;
        const region = await this.memory.regions.addRegion({ name, range: pages(first, count), priority, kind });
        this.#places.push({ region, at: first, count });
        next.addRegion(name, kind, priority, count);
        return;
      }
      case 'newDeviceMemory': {
        const { count } = operation;
        const name = `w${this.#places.length}`;
        const window = this.memory.newDeviceMemory({ name, length: at(count) });
        this.#places.push({ window, count });
        next.addRegion(name, 'device', DEVICE_PRIORITY, count);
        await window.unmapFromGuest(); // changes nothing, but is done after the window has come into being
        return;
      }
      case 'third target comes or goes':
        return this.#toggleThird();
      case 'write':
        return this.#write(operation.page, operation.byte, operation.by, next);
      default:
        return this.#change(operation, next);
    }
  }

  /** An operation on a region that there is, or on one that has been removed and says so. */
  async #change(operation: Extract<Operation, { readonly region: number }>, next: MemoryModel): Promise<void> {
    if (this.#places.length === 0) return;
    const index = operation.region % this.#places.length;
    const place = this.#places[index];
    const region = next.regions[index];
    if (place === undefined || region === undefined) throw new Error('the index is within');
    if (region.removed) {
      const gone = await this.#apply(operation, place, index, next.clone()).catch((error: unknown) => error);
      const told = gone instanceof PeerDmaError && gone.code === 'ERR_REGION_REMOVED';
      const idle = operation.op === 'remove' && place.window !== undefined; // close() is idempotent
      if (!told && !idle) throw new Error('a removed region was changed', { cause: gone });
      return;
    }
    await this.#apply(operation, place, index, next);
  }

  async #apply(
    operation: Extract<Operation, { readonly region: number }>,
    place: Place,
    index: number,
    next: MemoryModel,
  ): Promise<void> {
    switch (operation.op) {
      case 'addMapping': {
        const { writable } = operation;
        const first = operation.at % place.count;
        const count = Math.min(operation.count, place.count - first, FILE_PAGES - operation.page);
        const file = this.files[operation.file];
        const backing = file === undefined ? 'private' : { file, offset: at(operation.page) };
        const store = file === undefined ? this.#nextStore++ : operation.file;
        if (place.window === undefined)
          await place.region.addMapping({ range: pages(first, count), backing, writable });
        else await place.window.map({ offset: at(first), length: at(count), backing, writable });
        next.map(index, first, store, file === undefined ? 0 : operation.page, count, writable);
        return;
      }
      case 'removeMappings': {
        const first = operation.at % place.count;
        const count = Math.min(operation.count, place.count - first);
        if (place.window === undefined) await place.region.removeMappings(pages(first, count));
        else await place.window.unmap({ offset: at(first), length: at(count) });
        next.unmap(index, first, count);
        return;
      }
      case 'map': {
        const { writable } = operation;
        const gpa = place.window === undefined ? place.at : operation.gpa % (SIZE - place.count + 1);
        if (place.window === undefined) await place.region.map({ writable });
        else await place.window.mapToGuest(at(gpa), { writable });
        next.place(index, gpa, writable);
        return;
      }
      case 'unmap':
        if (place.window === undefined) await place.region.unmap();
        else await place.window.unmapFromGuest();
        next.place(index, undefined, true);
        return;
      case 'remove':
        if (place.window === undefined) await place.region.remove();
        else await place.window.close();
        next.remove(index);
    }
  }

  async #toggleThird(): Promise<void> {
    if (this.#thirdHandle === undefined) {
      this.#thirdHandle = await this.memory.dmaMappers.addDmaMapper(this.third);
    } else {
      await this.#thirdHandle.remove();
      this.#thirdHandle = undefined;
    }
  }

  /** Fills a page, if it can be reached; else sees that it can't. */
  #write(page: number, byte: number, by: 'vmm' | 'device', next: MemoryModel): void {
    const cell = next.flat(SIZE)[page];
    const bytes = new Uint8Array(PAGE_BYTES).fill(byte);
    const allowed = cell !== undefined && (by === 'vmm' || cell.writable);
    try {
      if (by === 'vmm') this.memory.write(at(page), bytes);
      else this.iommu.write(at(page), bytes);
    } catch (error) {
      const code = by === 'vmm' ? 'ERR_NOT_MAPPED' : 'ERR_DMA_FAULT';
      if (!allowed && error instanceof PeerDmaError && error.code === code) return;
      throw new Error(`the ${by} can't write page ${page}`, { cause: error });
    }
    if (!allowed || cell === undefined) throw new Error(`the ${by} has written page ${page}`);
    next.fill(cell, byte);
  }

  #compare(): void {
    const flat = this.#model.flat(SIZE);
    this.#compareRecorder(this.picky, flat);
    this.#compareRecorder(this.third, this.#thirdHandle === undefined ? flat.map(() => undefined) : flat);
    this.#compareIommu(flat);
    for (const [page, cell] of flat.entries()) {
      if (cell === undefined) continue;
      const [first] = this.memory.read(at(page), 1);
      const [last] = this.memory.read(at(page + 1) - 1n, 1);
      const byte = this.#model.byte(cell);
      same(`guest memory at page ${page}`, `${first} ${last}`, `${byte} ${byte}`);
    }
  }

  #compareRecorder(target: RecordingTarget, flat: readonly (ModelCell | undefined)[]): void {
    const seen: string[] = flat.map(() => 'nothing');
    for (const { range, backing, writable, kind, name, hostMemory } of target.held()) {
      for (let offset = 0n; offset < range.length; offset += PAGE) {
        const page = Number((range.start + offset) / PAGE);
        const where =
          backing === 'private' ? 'private' : `${this.files.indexOf(backing.file)}+${(backing.offset + offset) / PAGE}`;
        seen[page] = `${where} ${mode(writable)} ${kind} ${name}`;
        const cell = flat[page];
        if (hostMemory === undefined || cell === undefined) continue;
        same(`host memory of ${target.name} at page ${page}`, hostMemory.read(offset, 1)[0], this.#model.byte(cell));
      }
    }
    const due = flat.map((cell) => {
      if (cell === undefined) return 'nothing';
      const where = cell.store >= FILES ? 'private' : `${cell.store}+${cell.page}`;
      return `${where} ${mode(cell.writable)} ${cell.kind} ${cell.region}`;
    });
    for (const [page, what] of due.entries()) same(`${target.name} at page ${page}`, seen[page], what);
    same(`the contract with ${target.name}`, target.breaches.join('; '), '');
  }

  #compareIommu(flat: readonly (ModelCell | undefined)[]): void {
    const seen: string[] = flat.map(() => 'nothing');
    for (const { range, kind, name } of this.iommu.mappings()) {
      for (let iova = range.start; iova < range.end; iova += PAGE) {
        seen[Number(iova / PAGE)] = `${this.iommu.read(iova, 1)[0]} ${kind} ${name}`;
      }
    }
    for (const [page, cell] of flat.entries()) {
      const due = cell === undefined ? 'nothing' : `${this.#model.byte(cell)} ${cell.kind} ${cell.region}`;
      same(`the IOMMU at page ${page}`, seen[page], due);
    }
  }
}

function same(what: string, is: unknown, due: unknown): void {
  if (is !== due) throw new Error(`${what}: ${String(is)} instead of ${String(due)}`);
}

/** The message with those of its causes, which fast-check does not print. */
function chain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message} ← ${chain(error.cause)}`;
}

test('ten thousand random operations keep every target in step with the model', async (t) => {
  t.timeout(120_000);
  const seed = Number(process.env['PEERDMA_SEED'] ?? Date.now() & 0x7fffffff);
  t.log(`seed ${seed} (PEERDMA_SEED=${seed} runs the same programs again)`);
  const counts = { done: 0, refused: 0 };
  const property = fc.asyncProperty(program(STEPS), async ({ steps }: Program) => {
    const bench = await Bench.create();
    try {
      for (const [index, step] of steps.entries()) {
        try {
          if (await bench.step(step)) counts.refused++;
          counts.done++;
        } catch (error) {
          throw new Error(`step ${index}, ${describe(step)}: ${chain(error)}`, { cause: error });
        }
      }
    } finally {
      await bench.close();
    }
    same('the IOMMU after close', bench.iommu.mappings().length, 0);
    same('picky after close', bench.picky.held().length, 0);
  });
  let failure: unknown;
  let ran = 0;
  // Programs differ a little in length.
  for (let round = 0; counts.done < OPERATIONS && failure === undefined; round++) {
    await fc
      .assert(property, { seed: seed + round, numRuns: PROGRAMS, includeErrorInReport: true })
      .catch((error: unknown) => {
        failure = error;
      });
    ran += PROGRAMS;
  }
  if (failure !== undefined) throw failure;
  t.log(`${counts.done} operations in ${ran} programs, ${counts.refused} of them refused by a target`);
  t.true(counts.done >= OPERATIONS);
  t.true(counts.refused > 100);
});
