/**
 * On an IOMMU that loses a BAR when its device stops answering, as iommufd's do, the guest never meets a mapping that is void:
 * it goes before the device hears of it. Another device's DMA reaches each BAR exactly while it decodes, and where.
 */
import test, { type ExecutionContext } from 'ava';
import {
  type AssignedDevice,
  type PhysicalFunction,
  SimulatedBus,
  SimulatedDevice,
  type SimulatedDeviceOptions,
  resetDevices,
} from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { MASTER, MEMORY, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Scene } from './support/scene.ts';
import type { SpiedFunction } from './support/spied-function.ts';

const HERE = 0x40_0000_0000n;
const THERE = HERE + MiB;
const ELSEWHERE = HERE + 16n * MiB;
const PLACES = { here: HERE, there: THERE, elsewhere: ELSEWHERE } as const;
type Place = keyof typeof PLACES;

class Stage {
  readonly scene: Scene;
  readonly device: SimulatedDevice;
  readonly assigned: AssignedDevice;
  /** What was done to the hardware while an IOMMU that can lose its BARs had them. */
  readonly early: string[] = [];
  readonly #t: ExecutionContext;
  readonly #initiator: SimulatedDevice;

  private constructor(t: ExecutionContext, parts: Pick<Stage, 'scene' | 'device' | 'assigned'>, spied: SpiedFunction) {
    this.#t = t;
    this.scene = parts.scene;
    this.device = parts.device;
    this.assigned = parts.assigned;
    this.#initiator = new SimulatedDevice({ bdf: '0000:00:1f.0', bars: [], iommu: this.scene.iommufd });
    this.#initiator.config.write(4n, Uint8Array.of(MASTER, 0));
    t.teardown(() => this.#initiator.close());
    const name = `of ${this.device.bdf}`;
    spied.judge = (what) => {
      const has = this.scene.iommufd.mappings().some((mapping) => mapping.name.endsWith(name));
      if (has) this.early.push(what);
    };
  }

  /** A device whose BARs 0 and 2, of a MiB each, are at `here` and `there`, and decode. */
  static async create(t: ExecutionContext, options: Partial<SimulatedDeviceOptions> = {}): Promise<Stage> {
    const scene = await Scene.create(t);
    const bars = [0, 2].map((index) => ({ index, length: MiB, kind: 'memory64', prefetchable: true }) as const);
    const device = scene.simulated({ bars, ...options, msix: undefined } as never);
    const spied = scene.spied(device);
    const assigned = await scene.assign(spied);
    const stage = new Stage(t, { scene, device, assigned }, spied);
    await writeBar64(assigned, 0, HERE);
    await writeBar64(assigned, 2, THERE);
    await command(assigned, MEMORY);
    stage.found({ here: 0, there: 2 });
    stage.early.length = 0;
    return stage;
  }

  /** Another device finds these BARs at these places and nothing at the others, and no mapping is void. */
  found(due: Partial<Record<Place, number>>, what = ''): void {
    const found: Partial<Record<Place, number>> = {};
    for (const [place, gpa] of Object.entries(PLACES) as [Place, bigint][]) {
      const bar = this.#barAt(gpa);
      if (bar !== undefined) found[place] = bar;
    }
    this.#t.deepEqual(found, due, what);
    this.#t.deepEqual(this.scene.voids(), [], what);
    const mapped = this.scene.iommufd.mappings().filter(({ kind }) => kind === 'device');
    this.#t.is(mapped.length, Object.keys(due).length, `${what}: nothing else is mapped`);
  }

  /** The BAR that DMA to an address arrives in, at its first bytes and its last. */
  #barAt(gpa: bigint): number | undefined {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    try {
      this.#initiator.dmaWrite(gpa, bytes);
      this.#initiator.dmaWrite(gpa + MiB - 16n, bytes);
    } catch {
      return undefined;
    }
    return [0, 2].find((index) => {
      const bar = (this.device as PhysicalFunction).regions[index];
      return [0n, MiB - 16n].every((offset) => bar !== undefined && Buffer.compare(bar.read(offset, 16), bytes) === 0);
    });
  }
}

test('memory decode goes off and on', async (t) => {
  const stage = await Stage.create(t);
  const { assigned, early } = stage;
  for (let round = 0; round < 3; round++) {
    await command(assigned, MASTER);
    stage.found({}, 'off');
    t.deepEqual(early, [], 'the BARs went before the device heard of it');
    await command(assigned, MEMORY);
    stage.found({ here: 0, there: 2 }, 'on');
    early.length = 0;
  }
  await command(assigned, MEMORY | MASTER);
  stage.found({ here: 0, there: 2 });
  t.deepEqual(early, ['config 0x4 = 0x6'], 'what does not go off keeps its mappings');
});

test('the device sleeps and wakes, with memory decode on and off', async (t) => {
  const stage = await Stage.create(t);
  const { assigned, early } = stage;
  const power = capability(assigned, 0x01) + 4;
  for (let round = 0; round < 2; round++) {
    await assigned.configWrite(power, 2, 3);
    stage.found({}, 'asleep');
    t.deepEqual(early, []);
    await assigned.configWrite(power, 2, 0);
    stage.found({ here: 0, there: 2 }, 'awake');
    early.length = 0;
  }
  await assigned.configWrite(power, 2, 3);
  await command(assigned, 0);
  await assigned.configWrite(power, 2, 0);
  stage.found({}, 'awake, and off');
  await assigned.configWrite(power, 2, 3);
  await command(assigned, MEMORY);
  await writeBar64(assigned, 0, ELSEWHERE);
  stage.found({}, 'asleep, and on');
  await assigned.configWrite(power, 2, 0);
  stage.found({ elsewhere: 0, there: 2 });
});

test('a function-level reset, after which VFIO has it decode again', async (t) => {
  const stage = await Stage.create(t);
  const { assigned, early } = stage;
  const control = capability(assigned, 0x10) + 8;
  for (let round = 0; round < 2; round++) {
    await assigned.configWrite(control, 2, 0x8000);
    stage.found({ here: 0, there: 2 });
    t.deepEqual(early, []);
  }
});

for (const how of ['alone', 'with its bus'] as const) {
  test(`a reset ${how}, after which the guest places the BARs anew`, async (t) => {
    const bus = how === 'alone' ? undefined : new SimulatedBus();
    const stage = await Stage.create(t, bus === undefined ? {} : { bus, resettable: false });
    const { assigned, early } = stage;
    for (let round = 0; round < 2; round++) {
      await resetDevices([assigned]);
      stage.found({});
      t.deepEqual(early, []);
      await writeBar64(assigned, 0, THERE);
      await writeBar64(assigned, 2, ELSEWHERE);
      await command(assigned, MEMORY);
      stage.found({ there: 0, elsewhere: 2 });
      early.length = 0;
    }
  });
}

test('a bus is reset with several devices, and the one that is not on it keeps its mappings', async (t) => {
  const bus = new SimulatedBus();
  const stage = await Stage.create(t, { bus, resettable: false });
  const { scene, assigned } = stage;
  const beside = await scene.assign(scene.simulated({ bus, resettable: false }));
  const apart = scene.simulated();
  const other = await scene.assign(apart);
  const far = ELSEWHERE + 16n * MiB;
  await writeBar64(beside, 2, ELSEWHERE);
  await writeBar64(other, 2, far);
  for (const one of [beside, other]) await command(one, MEMORY);
  await rejectsCode(t, assigned.reset(), 'ERR_RESET_UNSUPPORTED');
  t.deepEqual(scene.voids(), [], 'quiet, and not reset');
  t.true(scene.reaches(ELSEWHERE, beside.device, 2));
  await resetDevices([beside, assigned]);
  t.deepEqual(scene.voids(), []);
  t.false(scene.reaches(ELSEWHERE, beside.device, 2));
  t.true(scene.reaches(far, apart, 2));
});

test('BARs move, onto one another and away again, and swap places', async (t) => {
  const stage = await Stage.create(t);
  const { assigned } = stage;
  await writeBar64(assigned, 0, ELSEWHERE);
  stage.found({ elsewhere: 0, there: 2 }, 'moved');
  await writeBar64(assigned, 0, THERE);
  stage.found({ there: 0 }, 'the older is seen');
  await writeBar64(assigned, 2, HERE);
  stage.found({ here: 2, there: 0 }, 'swapped');
  await command(assigned, 0);
  await writeBar64(assigned, 0, HERE);
  await writeBar64(assigned, 2, THERE);
  await command(assigned, MEMORY);
  stage.found({ here: 0, there: 2 }, 'swapped back, in one change');
});

test('a device that closes is out of reach before it is closed', async (t) => {
  const stage = await Stage.create(t);
  const { scene, assigned, early } = stage;
  await assigned.close();
  t.deepEqual(early, []);
  t.deepEqual(scene.voids(), []);
  t.deepEqual(
    scene.iommufd.mappings().map(({ name }) => name),
    ['ram0'],
  );
});

test('a device that another hand has closed or switched off is told, and out of reach', async (t) => {
  const stage = await Stage.create(t);
  const { scene, device, assigned } = stage;
  device.config.write(4n, Uint8Array.of(0, 0));
  device.config.write(4n, Uint8Array.of(MEMORY, 0));
  t.is(scene.voids().length, 2, 'by the IOMMU that has lost them alone');
  t.deepEqual(
    assigned.status().map(({ unreachable }) => unreachable.map(({ target, code }) => `${target} ${code}`)),
    [['iommufd ERR_MAPPING_REVOKED'], ['iommufd ERR_MAPPING_REVOKED']],
  );
  await writeBar64(assigned, 0, HERE); // where it is: nothing changes
  await command(assigned, 0);
  await command(assigned, MEMORY);
  stage.found({ here: 0, there: 2 }, 'off and on by the guest');
  await device.close();
  t.is(scene.voids().length, 2);
  await assigned.close();
  t.deepEqual(scene.voids(), []);
});
