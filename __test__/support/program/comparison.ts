/**
 * Compares everything visible of guest memory and its targets with the model, page by page.
 */
import type { DmaMapRequest } from '../../../ts/index.ts';
import { SimulatedIommu } from '../../../ts/testing.ts';
import { type ModelCell, type ModelFlat, PRIVATE, sameCell } from '../memory-model.ts';
import { PAGE, PAGE_BYTES } from '../pages.ts';
import { mode, usesHostMemory } from '../recording-target.ts';
import type { CastMember, CastName } from './cast.ts';
import { hasOtherMemory, overlap, type Quarantined, sharesPrivateMemory, skipsDevice } from './expectation.ts';
import type { Hit } from './faults.ts';
import { type Pages, SIZE } from './operation.ts';
import { compareFlat, compareRegions, describeCell, checkedByte, pagesOf, same } from './map-comparison.ts';
import type { Member, World } from './world.ts';

/** The events since the last comparison. */
export interface Events {
  readonly hits: readonly Hit[];
  /** Other flat maps that may have existed since then. */
  readonly attempts: readonly ModelFlat[];
  /** Whether a rollback, or its repair, failed as well. */
  readonly undone: boolean;
  /** The range of a successful change: it retries everything there that had failed. */
  readonly settled: readonly Pages[];
}

interface Entry extends Pages {
  readonly state: string;
  readonly region: string;
  readonly kind: string;
}

export class Comparison {
  readonly #world: World;
  /** The memory that a target holds. */
  readonly #given = new WeakMap<DmaMapRequest, ModelFlat>();
  /** Of those, pages that may be other memory as well. */
  readonly #vague = new WeakSet<DmaMapRequest>();
  /** Pages that a target misses because it failed to map them, by target. */
  #missing = new Map<CastName, Map<number, ModelCell>>();
  quarantine: Quarantined[] = [];
  subs: Pages[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  compare(events: Events): void {
    const world = this.#world;
    const snapshot = world.memory.inspect();
    const flat = world.flat();
    compareRegions(world, snapshot);
    this.subs = snapshot.flat.map((sub) => pagesOf(world, sub));
    compareFlat(world, snapshot, flat);
    this.#markPrivateMemory(flat);
    same('the targets there are', snapshot.targets.map(({ name }) => name).join(), [...world.members.keys()].join());
    const entries = new Map<CastName, Entry[]>();
    for (const { name, mappings } of snapshot.targets) {
      entries.set(
        name as CastName,
        mappings.map(({ start, end, state, region, kind }) => ({
          ...pagesOf(world, { start, end }),
          state,
          region,
          kind,
        })),
      );
    }
    this.#learn(entries, flat, events);
    this.#compareQuarantine(entries, events);
    same('the quarantine', snapshot.quarantine.length, this.quarantine.length);
    const missing = new Map<CastName, Map<number, ModelCell>>();
    for (const [name, member] of world.members) {
      missing.set(name, this.#compareTarget(name, member, entries.get(name) ?? [], flat, events));
    }
    this.#missing = missing;
    for (const [name, target] of Object.entries(world.cast)) {
      same(`the contract with "${name}"`, target.breaches.join('; '), '');
      if (!world.members.has(name as CastName)) same(`"${name}", which is not here, holds`, text(target.held()), '');
    }
  }

  /**
   * Private memory is zeros at first. It gets bytes of its own as soon as it is reachable, so that it can be
   * distinguished.
   */
  #markPrivateMemory(flat: ModelFlat): void {
    for (const [page, cell] of flat.entries()) {
      if (cell === undefined || cell.store < PRIVATE || this.#world.contents.byte(cell) !== 0) continue;
      const byte = 0x80 + (cell.store % 0x60);
      this.#world.memory.write(this.#world.range({ at: page, count: 1 }).start, new Uint8Array(PAGE_BYTES).fill(byte));
      this.#world.contents.fill(cell, byte);
    }
  }

  /** Determines the memory of each new mapping of a target. */
  #learn(entries: ReadonlyMap<CastName, readonly Entry[]>, flat: ModelFlat, { attempts }: Events): void {
    for (const name of this.#world.members.keys()) {
      const states = new Map((entries.get(name) ?? []).filter(isHeld).map((entry) => [entry.at, entry.state]));
      for (const request of this.#world.cast[name].held()) {
        if (this.#given.has(request)) continue;
        const at = this.#world.pageOf(request.range.start);
        const count = Number(request.range.length / PAGE);
        const candidates = states.get(at) === 'quarantined' ? [...attempts.toReversed(), flat] : [flat];
        const fitting = candidates
          .map((candidate) => candidate.slice(at, at + count))
          .filter((candidate) => this.#isGiven(request, candidate));
        const [cells] = fitting;
        // All fresh private memory has the same bytes.
        if (fitting.some((other) => !sameCells(other, cells ?? []))) this.#vague.add(request);
        if (cells === undefined) {
          throw new Error(
            `"${name}" holds ${describeRequest(request)}, which it should not: ${flat
              .slice(at, at + count)
              .map((cell) => (cell === undefined ? 'nothing' : describeCell(cell)))
              .join(', ')}`,
          );
        }
        this.#given.set(request, cells);
      }
    }
  }

  #isGiven({ backing, writable, kind, name, hostMemory }: DmaMapRequest, cells: ModelFlat): boolean {
    return cells.every((cell, n) => {
      if (cell === undefined || cell.writable !== writable || cell.kind !== kind || cell.region !== name) return false;
      const byte = hostMemory?.read(BigInt(n) * PAGE + checkedByte(n), 1)[0] ?? this.#world.contents.byte(cell);
      if (byte !== this.#world.contents.byte(cell)) return false;
      if (backing === 'private') return cell.store >= PRIVATE;
      return this.#world.isFile(cell.store, backing.file) && cell.page === Number(backing.offset / PAGE) + n;
    });
  }

  #compareQuarantine(entries: ReadonlyMap<CastName, readonly Entry[]>, { hits, attempts }: Events): void {
    const now: Quarantined[] = [];
    for (const [target, list] of entries) {
      const held = new Map(this.#world.cast[target].held().map((request) => [request.range.start, request]));
      for (const { at, count, state, region } of list) {
        if (state !== 'quarantined') continue;
        const old = this.quarantine.find((kept) => kept.target === target && kept.at === at && kept.count === count);
        const request = held.get(this.#world.range({ at, count }).start);
        const given = request === undefined ? undefined : this.#given.get(request);
        const cells = given ?? this.#guess({ at, count }, region, [this.#world.flat(), ...attempts]);
        const vague = request !== undefined && this.#vague.has(request);
        now.push(old ?? { target, at, count, cells, vague });
        if (old !== undefined) continue;
        const due = hits.some(
          ({ on, op, call }) =>
            on === target &&
            (op === 'take back' ||
              (op === 'unmap' && call !== undefined && this.#world.pageOf(call.range.start) === at)),
        );
        if (!due) throw new Error(`"${target}" has pages ${at}..${at + count} in quarantine for no reason`);
      }
    }
    for (const { target, at, count } of this.quarantine) {
      if (!this.#world.members.has(target)) continue;
      const still = now.some((kept) => kept.target === target && kept.at === at && kept.count === count);
      if (!still) throw new Error(`the quarantine of pages ${at}..${at + count} of "${target}" has been lost`);
    }
    for (const { on, op, call } of hits) {
      if (op !== 'unmap' || call === undefined || !this.#world.members.has(on as CastName)) continue;
      const at = this.#world.pageOf(call.range.start);
      const kept = now.some((one) => one.target === on && one.at === at);
      if (!kept) throw new Error(`"${on}" would not unmap ${call.range}, which is not in quarantine`);
    }
    this.quarantine = now;
  }

  /** The planned memory of a batch that may be partly unmapped. Only the target's records have the result. */
  #guess({ at, count }: Pages, region: string, flats: readonly ModelFlat[]): ModelFlat {
    const all = flats.map((flat) => flat.slice(at, at + count));
    return all.find((cells) => cells.every((cell) => cell?.region === region)) ?? [];
  }

  /** @returns the pages that it misses because it failed to map them */
  #compareTarget(
    name: CastName,
    member: Member,
    entries: readonly Entry[],
    flat: ModelFlat,
    events: Events,
  ): Map<number, ModelCell> {
    const target = this.#world.cast[name];
    // The status lists quarantined memory beside the flat map's entry at those addresses.
    const told = new Map(entries.filter(isHeld).map((entry) => [entry.at, entry]));
    const held = new Map<number, DmaMapRequest>();
    for (const request of target.held()) {
      const at = this.#world.pageOf(request.range.start);
      const entry = told.get(at);
      if (entry?.count !== Number(request.range.length / PAGE)) {
        throw new Error(`"${name}" holds ${describeRequest(request)}, and its status does not say so`);
      }
      held.set(at, request);
      this.#compareMemory(name, target, request, at);
    }
    const missing = new Map<number, ModelCell>();
    const seen: (Entry | undefined)[] = Array.from({ length: SIZE }, () => undefined);
    for (const entry of entries) {
      const where = `"${name}" at pages ${entry.at}..${entry.at + entry.count}`;
      if (entry.state === 'mapped' && !held.has(entry.at))
        throw new Error(`${where} has nothing, and its status is mapped`);
      if (entry.state === 'quarantined' && !held.has(entry.at) && name !== 'batch') {
        throw new Error(`${where} has nothing, and its status is quarantined`);
      }
      if (!member.joined) same(`${where}, who was to go`, entry.state, 'quarantined');
      for (let n = 0; n < entry.count; n++) seen[entry.at + n] = entry;
      if (entry.state === 'quarantined') continue;
      for (let page = entry.at; page < entry.at + entry.count; page++) {
        const cell = flat[page];
        if (cell === undefined) throw new Error(`${where} is ${entry.state}, and there is nothing at page ${page}`);
        same(`${where}: region and kind`, `${entry.region} ${entry.kind}`, `${cell.region} ${cell.kind}`);
        const skips = cell.kind === 'device' && skipsDevice(name, target, member, cell);
        if (skips !== (entry.state === 'skipped'))
          throw new Error(`${where} is ${entry.state} under peer-to-peer ${member.policy}`);
        if (entry.state === 'mapped') {
          const given = this.#given.get(held.get(entry.at) as DmaMapRequest)?.[page - entry.at];
          if (!sameCell(given, cell)) throw new Error(`${where} has other memory than the flat map at page ${page}`);
        } else if (entry.state === 'failed') {
          const why = this.#mayMiss(name, member, entry, page, cell, flat, events);
          if (why === undefined) throw new Error(`${where} misses page ${page} for no reason`);
          if (why === 'refused') missing.set(page, cell);
        }
      }
    }
    if (!member.joined) return missing;
    for (const [page, cell] of flat.entries()) {
      if (cell !== undefined && seen[page] === undefined) throw new Error(`the status of "${name}" lacks page ${page}`);
    }
    return missing;
  }

  /** Why a target may lack a page of the flat map. */
  #mayMiss(
    name: CastName,
    { policy }: Member,
    entry: Pages,
    page: number,
    cell: ModelCell,
    flat: ModelFlat,
    { hits, undone, settled }: Events,
  ): 'refused' | 'kept out' | undefined {
    const target = this.#world.cast[name];
    const byPlace = usesHostMemory(target, cell.store >= PRIVATE);
    const dispensable = cell.kind === 'device' && policy === 'best-effort';
    const refused = hits.some(({ on, op, call }) => {
      if (on === 'native') return (undone || dispensable) && byPlace;
      if (on !== name || op !== 'map' || call?.request === undefined) return false;
      const at = this.#world.pageOf(call.range.start);
      return (
        (undone || dispensable) &&
        at <= page &&
        page < at + Number(call.range.length / PAGE) &&
        this.#shows(call.request, page - at, cell)
      );
    });
    if (refused) return 'refused';
    const keptOut = this.quarantine.some((kept) => {
      if (kept.target === name && overlap(kept, entry)) return true; // its own, at these addresses
      return byPlace && (hasOtherMemory(kept, flat, entry) || sharesPrivateMemory(kept, flat, entry));
    });
    if (keptOut) return 'kept out';
    if (settled.some((pages) => overlap(pages, { at: page, count: 1 }))) return undefined;
    const before = this.#missing.get(name)?.get(page);
    if (before !== undefined && sameCell(before, cell)) return 'refused';
    return undefined;
  }

  #shows({ backing, writable, name }: DmaMapRequest, n: number, cell: ModelCell): boolean {
    if (cell.region !== name || cell.writable !== writable) return false;
    if (backing === 'private') return cell.store >= PRIVATE;
    return this.#world.isFile(cell.store, backing.file) && cell.page === Number(backing.offset / PAGE) + n;
  }

  /** DMA of a target finds the bytes of the memory that it holds, mapped at any time. */
  #compareMemory(name: CastName, target: CastMember, request: DmaMapRequest, at: number): void {
    const { range, hostMemory, backing } = request;
    if ((hostMemory !== undefined) !== usesHostMemory(target, backing === 'private')) {
      throw new Error(`"${name}": needsVa is not heeded at ${range}`);
    }
    if (this.#vague.has(request)) return;
    for (const [n, cell] of (this.#given.get(request) ?? []).entries()) {
      if (cell === undefined) continue;
      const offset = BigInt(n) * PAGE + checkedByte(at + n);
      const due = this.#world.contents.byte(cell);
      if (hostMemory !== undefined) {
        same(`the memory of "${name}" at page ${at + n}`, hostMemory.read(offset, 1)[0], due);
      }
      if (!(target instanceof SimulatedIommu)) continue;
      same(`what a device reads at page ${at + n}`, target.read(range.start + offset, 1)[0], due);
    }
  }

  /** The page that a target holds, if a device can write it there. */
  writableAt(name: CastName, page: number): { request: DmaMapRequest; offset: bigint; cell: ModelCell } | undefined {
    for (const request of this.#world.cast[name].held()) {
      const n = page - this.#world.pageOf(request.range.start);
      const cell = n < 0 ? undefined : this.#given.get(request)?.[n];
      if (cell !== undefined && !this.#vague.has(request))
        return request.writable ? { request, offset: BigInt(n) * PAGE, cell } : undefined;
    }
    return undefined;
  }
}

function sameCells(a: ModelFlat, b: ModelFlat): boolean {
  return a.length === b.length && a.every((cell, n) => sameCell(cell, b[n]));
}

/** Whether the target holds it, or may hold it. */
function isHeld({ state }: Entry): boolean {
  return state === 'mapped' || state === 'quarantined';
}

function describeRequest({ range, backing, writable, kind, name }: DmaMapRequest): string {
  const where = backing === 'private' ? backing : `${backing.file.name}+${backing.offset}`;
  return `${range} ${where} ${mode(writable)} ${kind} ${name}`;
}

function text(held: readonly DmaMapRequest[]): string {
  return held.map(describeRequest).join('; ');
}
