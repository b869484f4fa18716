// Each step of plugging, unplugging and adding RAM fails alone, with each later one, and with all later ones. The map,
// the targets and the bytes are as before, and the call can be repeated.
import test, { type ExecutionContext } from 'ava';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  GuestMemory,
  MemoryFile,
  type MemorySettledEvent,
  PeerDmaError,
  type PluggableRam,
  type PluggableRamOptions,
} from '../../ts/index.ts';
import { type FaultPlan, countNative, heal, inject, judgeOf } from '../support/faults.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, PAGE, pages } from '../support/pages.ts';
import { BatchRecordingTarget, RecordingTarget } from '../support/recording-target.ts';

const RAM: PluggableRamOptions = {
  start: at(16),
  length: at(8),
  blockSize: PAGE,
  mappingSize: at(4),
  plugged: [pages(17, 3)],
};
/** The byte of each plugged block. */
const BYTE = 7;

class Scene {
  readonly memory: GuestMemory;
  readonly ram: PluggableRam;
  readonly targets: readonly RecordingTarget[];

  private constructor(memory: GuestMemory, ram: PluggableRam, targets: readonly RecordingTarget[]) {
    this.memory = memory;
    this.ram = ram;
    this.targets = targets;
  }

  static async create(options: Partial<PluggableRamOptions>): Promise<Scene> {
    const memory = await GuestMemory.create({ addressWidth: 20 });
    const { file } = options;
    for (let page = 0n; file !== undefined && page < 8n; page++) file.write(page * PAGE, Uint8Array.of(BYTE + 1));
    const ram = await memory.addPluggableRam({ ...RAM, ...options });
    file?.close();
    for (const page of [17, 18, 19]) memory.write8(at(page), BYTE);
    const targets = [
      new BatchRecordingTarget({ name: 'vfio', needsVa: true }),
      new RecordingTarget({ name: 'other', needsVa: 'private', async: true }),
    ];
    for (const target of targets) {
      await memory.dmaMappers.addDmaMapper(target);
      target.judge = judgeOf(target.name);
    }
    return new Scene(memory, ram, targets);
  }

  /** The plugged blocks, the mappings of targets, and the first byte of each block. */
  state(): string {
    const plugged = this.ram.plugged().map(String);
    const held = this.targets.map((target) => target.heldText());
    const bytes = Array.from({ length: 8 }, (_, index) => {
      const isPlugged = this.ram.plugged(pages(16 + index, 1)).length > 0;
      return isPlugged ? this.memory.read8(at(16 + index)) : '-';
    });
    return JSON.stringify({ plugged, held, bytes, regions: this.memory.inspect().regions.length });
  }

  /** Closes targets that have a quarantine. */
  async closeQuarantined(): Promise<boolean> {
    const quarantined = this.memory.inspect().quarantine.map(({ target }) => target);
    for (const target of this.targets.filter(({ name }) => quarantined.includes(name))) {
      target.closeWithMappings();
      await this.memory.dmaMappers.targetClosed(target);
    }
    return quarantined.length > 0;
  }

  breaches(): string[] {
    return this.targets.flatMap(({ breaches }) => breaches);
  }
}

const CHANGES: Readonly<Record<string, (scene: Scene) => Promise<unknown>>> = {
  'blocks are plugged': ({ ram }) => ram.plug([pages(16, 1), pages(20, 3)]),
  'blocks are unplugged': ({ ram }) => ram.unplug([pages(18, 1)]),
  'all blocks are unplugged': ({ ram }) => ram.unplug([pages(17, 3)]),
  'RAM is added': ({ memory }) => memory.addRam({ start: at(32), length: at(2), prefault: true, name: 'dimm' }),
  'RAM is removed': ({ ram }) => ram.remove(),
};
const KINDS: Readonly<Record<string, () => Partial<PluggableRamOptions>>> = {
  'a file': () => ({}),
  'a file of the caller': () => ({ file: MemoryFile.create(at(8)) }),
  'private memory': () => ({ private: true }),
  'a file that is faulted in': () => ({ prefault: true }),
};

type Outcome = PeerDmaError | undefined;

async function outcomeOf(change: Promise<unknown>): Promise<Outcome> {
  try {
    await change;
    return undefined;
  } catch (error) {
    if (error instanceof PeerDmaError) return error;
    throw error;
  }
}

async function check(
  t: ExecutionContext,
  run: (scene: Scene) => Promise<unknown>,
  kind: () => Partial<PluggableRamOptions>,
  plan: FaultPlan,
  after: string,
  unplugs: boolean,
): Promise<number> {
  const scene = await Scene.create(kind());
  const before = scene.state();
  inject(plan);
  const error = await outcomeOf(run(scene));
  const { taken, failed } = heal();
  const what = `${failed.join(' and ')} of ${taken.join(', ')}: ${error?.message}`;
  t.deepEqual(scene.breaches(), [], what);
  const isDiscarded = !unplugs || error?.code !== 'ERR_DISCARD_FAILED';
  if (error === undefined || !isDiscarded) t.is(scene.state(), after, what);
  else if (failed.length === 1 && error.code !== 'ERR_UNMAP_FAILED') t.is(scene.state(), before, what);
  else t.deepEqual(JSON.parse(scene.state()).bytes, JSON.parse(before).bytes, what);
  if (error !== undefined && isDiscarded) {
    const wasQuarantined = await scene.closeQuarantined();
    await run(scene);
    if (!wasQuarantined) t.is(scene.state(), after, what);
  }
  if (!isDiscarded) {
    t.true(
      failed.every((step) => step === 'native: discard'),
      what,
    );
    await scene.ram.plug([pages(18, 1)]);
    t.is(scene.memory.read8(at(18)), 0, what);
  }
  await scene.memory.close();
  return taken.length;
}

countNative();
let cases = 0;

for (const [title, run] of Object.entries(CHANGES)) {
  for (const [name, kind] of Object.entries(KINDS)) {
    test.serial(`${title}, and any step of it fails; ${name}`, async (t) => {
      t.timeout(120_000);
      const unplugs = title.includes('unplugged');
      const scene = await Scene.create(kind());
      inject(() => false);
      await run(scene);
      const steps = heal().taken.length;
      const after = scene.state();
      await scene.memory.close();
      for (let k = 0; k < steps; k++) {
        const taken = await check(t, run, kind, (step) => step === k, after, unplugs);
        await check(t, run, kind, (step) => step >= k, after, unplugs);
        for (let j = k + 1; j < taken; j++) {
          await check(t, run, kind, (step) => step === k || step === j, after, unplugs);
        }
        cases += 2 + taken - k;
      }
    });
  }
}

test.serial('the bytes of a block that could not be discarded never appear again', async (t) => {
  for (const kind of Object.values(KINDS)) {
    const { memory, ram } = await Scene.create(kind());
    inject((_step, what) => what === 'native: discard');
    const error = await rejectsCode(t, ram.unplug([pages(18, 1)]), 'ERR_DISCARD_FAILED');
    t.is(String(error.range), '0x12000..0x13000');
    t.deepEqual(ram.plugged().map(String), ['0x11000..0x12000', '0x13000..0x14000']);
    await rejectsCode(t, ram.plug([pages(18, 1)]), 'ERR_DISCARD_FAILED');
    heal();
    await ram.plug([pages(20, 1)]); // another block
    await ram.plug([pages(18, 1)]);
    t.is(memory.read8(at(18)), 0);
    await memory.close();
  }
});

test.serial('the events report a change that succeeded, although a discard failed after it', async (t) => {
  const { memory, ram } = await Scene.create({});
  const actions: string[] = [];
  const listener = (event: unknown): void => {
    const { memory: id, action, error } = event as MemorySettledEvent;
    if (id === memory.id) actions.push(error === undefined ? action : `${action} failed`);
  };
  subscribe('peerdma:memory.settled', listener);
  inject((_step, what) => what === 'native: discard');
  await rejectsCode(t, ram.unplug([pages(18, 1)]), 'ERR_DISCARD_FAILED');
  heal();
  unsubscribe('peerdma:memory.settled', listener);
  t.deepEqual(actions, ['change']);
  await memory.close();
});

test.after(() => console.log(`# cases of pluggable RAM: ${cases}`));
