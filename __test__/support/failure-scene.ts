/**
 * A small machine on which every step of every change is made to fail. It has two ranges of RAM, a ROM over one of
 * them, three BARs, and two targets of different kinds.
 */
import {
  AddressRange,
  type DeviceMemory,
  type DmaMapRequest,
  type DmaMapperHandle,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  type PeerToPeer,
  type Region,
} from '../../ts/index.ts';
import { judgeOf } from './faults.ts';
import { at, PAGE, PAGE_BYTES, pages, tag } from './pages.ts';
import { BatchRecordingTarget, mode, RecordingTarget } from './recording-target.ts';

/** Whether the scene has device memory at an address: all addresses without RAM. */
export function isDevicePlace(gpa: bigint): boolean {
  return !pages(0, 4).contains(gpa) && !pages(8, 3).contains(gpa);
}

/** Page `n` of the private RAM is filled with the byte `PRIVATE + n`. */
const PRIVATE_TAG = 0xa0;

/** The private memory that a change maps into the private RAM: the only page of zeros. */
export const NEW_PRIVATE: AddressRange = pages(9, 1);

/** The two targets: their policy for device memory, and the memory that each takes by host address. */
export interface Kinds {
  readonly policy: PeerToPeer;
  readonly needsVa: readonly [true | 'private', true | 'private'];
}

/** A target with its handle. */
export interface Follower {
  readonly target: RecordingTarget;
  /** `undefined` while it is not registered. */
  handle: DmaMapperHandle | undefined;
}

export class FailureScene {
  readonly memory: GuestMemory;
  readonly policy: PeerToPeer;
  readonly file: MemoryFile;
  readonly registeredTargets: Follower[] = [];
  /** While the scene is created. */
  low!: Region;
  high!: Region;
  rom!: Region;
  readonly bars: DeviceMemory[] = [];

  private constructor(memory: GuestMemory, policy: PeerToPeer) {
    this.memory = memory;
    this.policy = policy;
    this.file = MemoryFile.create(at(32), { name: 'file' });
    const bytes = new Uint8Array(32 * PAGE_BYTES);
    for (let page = 0; page < 32; page++) bytes.fill(tag(1, page), page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    this.file.write(0n, bytes);
  }

  /** @param romShown whether the ROM covers RAM from the beginning */
  static async create({ policy, needsVa }: Kinds, romShown: boolean): Promise<FailureScene> {
    const memory = await GuestMemory.create({ addressWidth: 20 });
    const scene = new FailureScene(memory, policy);
    const { file } = scene;
    scene.low = await memory.regions.addRegion({ name: 'low', range: pages(0, 4) });
    await scene.low.addMapping({ range: pages(0, 4), backing: { file, offset: 0n } });
    await scene.low.mapToGuest();
    scene.high = await memory.regions.addRegion({ name: 'high', range: pages(8, 3) });
    await scene.high.addMapping({ range: pages(0, 3), backing: 'private' });
    await scene.high.mapToGuest();
    for (let page = 8; page < 11; page++)
      memory.write(at(page), new Uint8Array(PAGE_BYTES).fill(tag(PRIVATE_TAG, page)));
    scene.rom = await memory.regions.addRegion({ name: 'rom', range: pages(1, 2), priority: 200 });
    await scene.rom.addMapping({ range: pages(0, 2), backing: { file, offset: at(4) }, writable: false });
    if (romShown) await scene.rom.mapToGuest();
    for (const [index, length] of [3, 1, 2].entries()) {
      const bar = memory.newDeviceMemory({ name: `bar${index}`, length: at(length) });
      scene.bars.push(bar);
      await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: at(8 + index * 4) } });
      if (length === 3)
        await bar.addMapping({ range: AddressRange.of(at(2), PAGE), backing: { file, offset: at(10) } });
      if (length === 2) await bar.addMapping({ range: AddressRange.of(PAGE, PAGE), backing: 'private' });
    }
    await scene.bar(0).mapToGuest(at(16));
    await scene.bar(1).mapToGuest(at(20));
    const [first, second] = needsVa;
    scene.registeredTargets.push({
      target: new BatchRecordingTarget({ name: 'vfio', needsVa: first }),
      handle: undefined,
    });
    scene.registeredTargets.push({
      target: new RecordingTarget({ name: 'other', needsVa: second, async: true }),
      handle: undefined,
    });
    for (const { target } of scene.registeredTargets) target.judge = judgeOf(target.name);
    return scene;
  }

  bar(index: number): DeviceMemory {
    const bar = this.bars[index];
    if (bar === undefined) throw new Error(`the scene has no BAR ${index}`);
    return bar;
  }

  targetAt(index: number): Follower {
    const follower = this.registeredTargets[index];
    if (follower === undefined) throw new Error(`the scene has no target ${index}`);
    return follower;
  }

  /** Registers a target, unless it is registered. */
  async join(index: number): Promise<void> {
    const follower = this.targetAt(index);
    follower.handle ??= await this.memory.dmaMappers.addDmaMapper(follower.target, { peerToPeer: this.policy });
  }

  /** Removes a target. One that fails to unmap is removed, too. */
  async leave(index: number): Promise<void> {
    const follower = this.targetAt(index);
    const { handle } = follower;
    follower.handle = undefined;
    await handle?.remove();
  }

  /** Closes a target with all its mappings. */
  async close(index: number): Promise<void> {
    const follower = this.targetAt(index);
    follower.handle = undefined;
    follower.target.closeWithMappings();
    await this.memory.dmaMappers.targetClosed(follower.target);
  }

  /** The region snapshots and the flat map as text. */
  map(): string {
    const { regions, flat } = this.memory.inspect();
    return JSON.stringify({ regions, flat });
  }

  /** The status of each target and its mappings. */
  statusLines(): string[] {
    return this.registeredTargets.flatMap(({ target, handle }) => {
      const status =
        handle?.status().map(({ range, state, region }) => `${target.name}: ${range} ${region} ${state}`) ?? [];
      return [...status, ...target.held().map((request) => `${target.name} holds ${text(request)}`)];
    });
  }

  /** All inconsistencies of the targets, whatever has failed before: see {@link inconsistencies}. */
  inconsistencies(): string[] {
    return this.registeredTargets.flatMap((follower) => this.#inconsistenciesOf(follower));
  }

  /** Closes the guest memory and checks that no target holds anything. */
  async end(): Promise<void> {
    await this.memory.close();
    this.file.close();
    for (const { target } of this.registeredTargets) {
      if (target.held().length > 0) throw new Error(`${target.name} still holds ${target.heldText().join(', ')}`);
      if (target.breaches.length > 0) throw new Error(target.breaches.join('; '));
    }
  }

  /**
   * Compares a target with its status. It holds exactly the memory that is `mapped`, as in the flat map, and nothing
   * that is `failed`. It may also hold quarantined memory. Each entry of the flat map has a status.
   */
  #inconsistenciesOf({ target, handle }: Follower): string[] {
    const odd = target.breaches.map((breach) => `${target.name}: ${breach}`);
    const { flat, targets } = this.memory.inspect();
    const known = targets.find(({ name }) => name === target.name)?.mappings ?? [];
    const held = new Map(target.held().map((request) => [String(request.range), request]));
    // The flat map may have other memory in a quarantined range.
    const kept = known.filter(({ state }) => state === 'quarantined');
    for (const { start, end, state, region } of [...kept, ...known.filter((one) => !kept.includes(one))]) {
      const request = held.get(`${start}..${end}`);
      held.delete(`${start}..${end}`);
      const what = `${target.name}: ${start}..${end} ${region} is ${state}`;
      if (state === 'quarantined') {
        // If a batch could not be unmapped, its remaining mappings are not known.
        if (request !== undefined && !this.#reads(request)) odd.push(`${what}, but its memory is not there`);
        continue;
      }
      const due = flat.find((sub) => sub.start === start && sub.end === end);
      if (due === undefined) odd.push(`${what}, but the flat map has no such entry`);
      if (state !== 'mapped') {
        if (request !== undefined) odd.push(`${what}, but it holds it`);
        continue;
      }
      const is = request === undefined ? 'nothing' : text(request);
      const should = due === undefined ? 'nothing' : `${start}..${end} ${mode(due.writable)} ${region} ${due.backing}`;
      if (is !== should) odd.push(`${what}, but it holds ${is} instead of ${should}`);
      if (request !== undefined && !this.#reads(request)) odd.push(`${what}, but reads other bytes`);
    }
    for (const request of held.values()) odd.push(`${target.name} holds ${text(request)} without a status`);
    for (const { start, end } of handle === undefined ? [] : flat) {
      const told = known.some((one) => one.start === start && one.end === end);
      if (!told) odd.push(`${target.name} has no status for ${start}..${end}`);
    }
    return odd;
  }

  /** Whether the memory leased for a request has the expected bytes. */
  #reads({ range, hostMemory, backing, kind }: DmaMapRequest): boolean {
    if (hostMemory === undefined) return true;
    for (let offset = 0n; offset < range.length; offset += PAGE) {
      const page = Number((range.start + offset) / PAGE);
      const bytes = range.equals(NEW_PRIVATE) || kind === 'device' ? 0 : tag(PRIVATE_TAG, page);
      const due = backing === 'private' ? bytes : tag(1, Number((backing.offset + offset) / PAGE));
      try {
        if (hostMemory.read(offset, 1)[0] !== due) return false;
      } catch (error) {
        if (error instanceof PeerDmaError) return false;
        throw error;
      }
    }
    return true;
  }
}

function text({ range, writable, name, backing }: DmaMapRequest): string {
  const where = backing === 'private' ? 'private' : `${backing.file.name}+0x${backing.offset.toString(16)}`;
  return `${range} ${mode(writable)} ${name} ${where}`;
}
