/**
 * Random programs with devices that are disabled, enabled and reset, by this process or another. Meanwhile windows move
 * and targets fail. Each target holds the memory that its status reports, and everything that can be mapped is mapped.
 */
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import {
  AddressRange,
  type DeviceMemory,
  type DmaMapperHandle,
  type DmaTarget,
  GuestMemory,
  PeerDmaError,
  type PeerToPeer,
} from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { type GuestAddressSpace } from '../../ts/guest/guest-address-space.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { MemoryOfDevice, RevocableTarget } from '../support/device-file.ts';
import { at, PAGE } from '../support/pages.ts';
import { type Call, RecordingTarget } from '../support/recording-target.ts';
import { seedOf } from '../support/seed.ts';

interface Fault {
  readonly target: 0 | 2;
  readonly op: 'map' | 'unmap';
  readonly nth: number;
  /** All later ones fail too. */
  readonly onwards: boolean;
}

type What =
  | { readonly op: 'decode'; readonly device: number; readonly on: boolean }
  | { readonly op: 'lose' | 'give' | 'away'; readonly device: number }
  | { readonly op: 'move'; readonly device: number; readonly to: number }
  | { readonly op: 'act'; readonly device: number; readonly fails: boolean }
  | { readonly op: 'refresh' | 'replace'; readonly target: number };

interface Op {
  readonly what: What;
  readonly fault: Fault | undefined;
}

const device = fc.nat(1);
const nothing = fc.record({
  op: fc.constantFrom('lose' as const, 'give' as const, 'give' as const, 'away' as const),
  device,
});
const what: fc.Arbitrary<What> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('decode' as const), device, on: fc.boolean() }) },
  { weight: 4, arbitrary: nothing },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('move' as const), device, to: fc.nat(3) }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('act' as const), device, fails: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('refresh' as const), target: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('replace' as const), target: fc.nat(2) }) },
);
const fault: fc.Arbitrary<Fault> = fc.record({
  target: fc.constantFrom(0 as const, 2 as const),
  op: fc.constantFrom('map' as const, 'map' as const, 'unmap' as const),
  nth: fc.nat(2),
  onwards: fc.boolean(),
});
const operation: fc.Arbitrary<Op> = fc.record({ what, fault: fc.option(fault, { nil: undefined, freq: 3 }) });
const policy = fc.constantFrom<PeerToPeer>('best-effort', 'required', 'off', 'best-effort');

/** The addresses of windows, so close that they overlap. */
const PLACES = [16, 18, 24, 32];

class Bench {
  readonly memory: GuestMemory;
  readonly #space: GuestAddressSpace;
  readonly #devices: readonly MemoryOfDevice[];
  readonly #windows: DeviceMemory[] = [];
  readonly #places: (number | undefined)[] = [undefined, undefined];
  readonly #policies: readonly PeerToPeer[];
  readonly #targets = [
    new RevocableTarget({ name: 'one', async: true }),
    new SimulatedIommu({ name: 'two', rules: 'iommufd' }),
    new RecordingTarget({ name: 'three', needsVa: true }),
  ] as const;
  readonly #handles: (DmaMapperHandle | undefined)[] = [];

  private constructor(memory: GuestMemory, devices: readonly MemoryOfDevice[], policies: readonly PeerToPeer[]) {
    this.memory = memory;
    this.#space = guestAddressSpaceOf(memory);
    this.#devices = devices;
    this.#policies = policies;
  }

  static async create(devices: readonly MemoryOfDevice[], policies: readonly PeerToPeer[]): Promise<Bench> {
    const ram = [
      { start: 0n, length: at(2) },
      { start: at(4), length: PAGE, private: true },
    ];
    const bench = new Bench(await GuestMemory.create({ addressWidth: 20, ram }), devices, policies);
    for (const [index, { file }] of devices.entries()) {
      file.write(0n, Uint8Array.of(0x40 + index)); // an earlier test may have changed it
      const window = bench.memory.newDeviceMemory({ name: `w${index}`, length: at(3) });
      await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
      await window.addMapping({ range: AddressRange.of(at(2), PAGE), backing: { file, offset: 0n } });
      bench.#windows.push(window);
    }
    for (const target of bench.#targets.keys()) await bench.#join(target);
    return bench;
  }

  async run({ what: one, fault: meets }: Op): Promise<void> {
    const calls = { map: 0, unmap: 0 };
    const faulty = this.#targets[meets?.target ?? 0];
    if (meets !== undefined) {
      faulty.judge = ({ op }: Call) => {
        if (op !== meets.op) return undefined;
        const n = calls[meets.op]++;
        return n === meets.nth || (meets.onwards && n > meets.nth) ? new Error('injected') : undefined;
      };
    }
    let error: unknown;
    try {
      await this.#do(one);
    } catch (thrown) {
      error = thrown;
    }
    faulty.judge = () => undefined;
    const hit = meets !== undefined && calls[meets.op] > meets.nth;
    if (error !== undefined && !(error instanceof PeerDmaError) && error !== FAILED) throw error;
    this.#compare();
    if (!hit && this.memory.inspect().quarantine.length === 0) this.#complete(one, error);
  }

  async close(): Promise<void> {
    for (const target of this.#targets.keys()) await this.#leave(target);
    await this.memory.close();
    const left = this.#targets.flatMap((target) => regionsIn(target));
    if (left.length > 0) throw new Error(`left are ${left.join()}`);
  }

  async #do(one: What): Promise<void> {
    if ('target' in one) {
      if (one.op === 'refresh') return void (await this.#handles[one.target]?.refresh());
      await this.#leave(one.target);
      return this.#join(one.target);
    }
    const [of, window] = [this.#devices[one.device], this.#windows[one.device]];
    if (of === undefined || window === undefined) throw new Error('there are two');
    switch (one.op) {
      case 'decode':
        return of.decode(one.on);
      case 'lose':
        return of.revoke();
      case 'give':
        return this.#space.retryDeviceMemory([of.memory]);
      case 'away':
        await window.unmapFromGuest();
        this.#places[one.device] = undefined;
        return undefined;
      case 'move': {
        const page = PLACES[one.to] ?? 0;
        await window.mapToGuest(at(page));
        this.#places[one.device] = page;
        return undefined;
      }
      case 'act':
        return this.#space.runWhileUnmapped([of.memory], async () => {
          for (const target of this.#targets) {
            const has = regionsIn(target);
            const kept = this.memory.inspect().quarantine.some((entry) => entry.target === target.name);
            if (has.includes(`w${one.device}`) && !kept) throw new Error(`${target.name} has it meanwhile`);
          }
          of.revoke();
          await Promise.resolve();
          if (one.fails) throw FAILED;
        });
    }
  }

  async #join(index: number): Promise<void> {
    const target: DmaTarget | undefined = this.#targets[index];
    if (target === undefined) throw new Error('there are three');
    const peerToPeer = this.#policies[index] ?? 'best-effort';
    this.#handles[index] = await this.memory.dmaMappers.addDmaMapper(target, { peerToPeer }).catch((error: unknown) => {
      if (error instanceof PeerDmaError) return undefined; // disabled memory is required, or a fault is planned
      throw error;
    });
  }

  /** Closes it like a container. */
  async #leave(index: number): Promise<void> {
    const target = this.#targets[index];
    if (target === undefined) throw new Error('there are three');
    if ('held' in target) target.closeWithMappings();
    else for (const { range } of target.mappings()) target.unmapDma(range);
    // The others receive the memory that its quarantine blocked, and may fail to map it.
    await this.memory.dmaMappers.targetClosed(target).catch((error: unknown) => {
      if (!(error instanceof PeerDmaError)) throw error;
    });
    this.#handles[index] = undefined;
  }

  /** Each target holds the memory that its status reports. */
  #compare(): void {
    const { flat, targets } = this.memory.inspect();
    for (const target of this.#targets) {
      const known = targets.find(({ name }) => name === target.name)?.mappings ?? [];
      const has = new Set(heldBy(target).map(({ range, region }) => `${range} ${region}`));
      if ('held' in target && target.breaches.length > 0) throw new Error(target.breaches.join('; '));
      for (const { start, end, region, state, code } of known) {
        const text = `${start}..${end} ${region}`;
        const isHeld = state === 'mapped' || state === 'quarantined' || code === 'ERR_MAPPING_REVOKED';
        const twice = known.filter((other) => other.start === start && other.end === end).length > 1;
        if (has.has(text) !== isHeld && !twice) throw new Error(`${target.name}: ${text} is ${state} ${code}`);
        if (isHeld) has.delete(text);
        if (state === 'quarantined' || flat.some((sub) => sub.start === start && sub.end === end)) continue;
        throw new Error(`${target.name}: ${text} is ${state}, and not in the flat map`);
      }
      if (has.size > 0) throw new Error(`${target.name} holds ${[...has].join()} without a status`);
      if (!this.#handles.some((handle, index) => handle !== undefined && this.#targets[index] === target)) continue;
      for (const sub of flat) {
        if (known.some(({ start, end }) => start === sub.start && end === sub.end)) continue;
        throw new Error(`${target.name}: no status of ${sub.start}..${sub.end} ${sub.region}`);
      }
    }
    const two = this.#targets[1];
    for (const { start, region, state, code } of targets.find(({ name }) => name === 'two')?.mappings ?? []) {
      if (!region.startsWith('w') || state !== 'mapped') continue;
      const byte = two.read(BigInt(start), 1)[0];
      const of = this.#devices[Number(region.slice(1))];
      const due = of?.accessible === true ? 0x40 + Number(region.slice(1)) : 0;
      if (byte !== due) throw new Error(`two reads ${byte} instead of ${due} in ${region}, ${code}`);
    }
  }

  /** Without a fault, an operation has its full effect. */
  #complete(one: What, error: unknown): void {
    const { targets } = this.memory.inspect();
    const due = (name: string, wanted: (region: string) => boolean): void => {
      for (const { region, kind, state, code } of targets.find((target) => target.name === name)?.mappings ?? []) {
        const of = this.#devices[Number(region.slice(1))];
        if (kind !== 'device' || state === 'skipped' || !wanted(region) || of?.accessible !== true) continue;
        if (state !== 'mapped') throw new Error(`${name} has ${region} ${state} ${code} after ${one.op}`);
      }
    };
    if ('target' in one)
      return one.op === 'refresh' ? due(this.#targets[one.target]?.name ?? '', () => true) : undefined;
    // The memory that a removed window uncovers may be disabled, and required.
    const accessible = this.#devices.every((of) => of.accessible);
    if (accessible && error !== undefined && error !== FAILED) throw error as Error;
    if (error !== undefined || (one.op !== 'give' && one.op !== 'move')) return undefined;
    for (const { name } of this.#targets) due(name, (region) => region === `w${one.device}`);
    return undefined;
  }
}

/** Names of the regions that the target maps in part or whole. */
interface HeldMapping {
  readonly range: AddressRange;
  readonly region: string;
}

function heldBy(target: RecordingTarget | SimulatedIommu): readonly HeldMapping[] {
  if (target instanceof SimulatedIommu) return target.mappings();
  return target.held().map(({ range, name }) => ({ range, region: name }));
}

function regionsIn(target: RecordingTarget | SimulatedIommu): string[] {
  return heldBy(target).map(({ region }) => region);
}

const FAILED = new Error('the required change failed');

async function run(t: ExecutionContext, programs: number): Promise<void> {
  t.timeout(120_000);
  const devices = [0, 1].map((index) => new MemoryOfDevice(t, `device ${index}`, 1, 0x40 + index));
  let count = 0;
  const property = fc.asyncProperty(
    fc.tuple(policy, policy, policy),
    fc.array(operation, { minLength: 5, maxLength: 40, size: 'max' }),
    async (policies, operations) => {
      for (const one of devices) one.decode(true);
      const bench = await Bench.create(devices, policies);
      try {
        for (const one of operations) {
          count++;
          await bench.run(one);
        }
      } finally {
        await bench.close();
      }
    },
  );
  await fc.assert(property, { seed: seedOf(t), numRuns: programs, includeErrorInReport: true });
  t.log(`${programs} programs, ${count} operations`);
  t.true(count > programs * 10);
}

test('random device events: the status of each target is true, and all that can be mapped is mapped', async (t) => {
  await run(t, 300);
});
