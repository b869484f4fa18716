/** Mappings after a reset of a simulated device, in DMA targets whose mappings it revokes, as in iommufd. */
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  type DmaMapperHandle,
  GuestMemory,
  SimulatedBus,
  SimulatedDevice,
  SimulatedIommu,
} from '../../../ts/index.ts';
import { rejectsCode } from '../../support/errors.ts';
import { region, write16 } from './support.ts';

const MiB = 1n << 20n;
const BAR = 0xe000_0000n;
const PMCSR = 0x44n;
const FLR = 0x8000;

interface Rig {
  readonly memory: GuestMemory;
  readonly iommu: SimulatedIommu;
  readonly handle: DmaMapperHandle;
  /** Maps BAR 0 of a device at an address. */
  readonly place: (device: SimulatedDevice, gpa: bigint) => Promise<void>;
  /** The states of all mappings, once the changes under way are done. */
  readonly states: () => Promise<string[]>;
}

async function rig(t: ExecutionContext, name = 'iommu'): Promise<Rig> {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const iommu = new SimulatedIommu({ name, rules: 'iommufd' });
  const handle = await memory.dmaMappers.addDmaMapper(iommu);
  const place = async (device: SimulatedDevice, gpa: bigint): Promise<void> => {
    const window = memory.newDeviceMemory({ name: device.bdf, length: MiB });
    await window.addMapping({ range: AddressRange.of(0n, MiB), backing: region(device, 0).backing() });
    await window.mapToGuest(gpa);
  };
  const states = async (): Promise<string[]> => {
    await memory.newDeviceMemory({ name: 'a change behind the others', length: MiB }).close();
    return handle.status().map(({ state, code }) => (code === undefined ? state : `${state} ${code}`));
  };
  return { memory, iommu, handle, place, states };
}

function device(t: ExecutionContext, slot: number, bus?: SimulatedBus): SimulatedDevice {
  const made = new SimulatedDevice({
    bdf: `0000:01:0${slot}.0`,
    bars: [{ index: 0, length: MiB }],
    powerManagement: {},
    pcie: {},
    ...(bus === undefined ? {} : { bus }),
  });
  t.teardown(() => made.close());
  return made;
}

test('maps the BAR again after a reset of the function', async (t) => {
  const { iommu, place, states } = await rig(t);
  const gpu = device(t, 1);
  await place(gpu, BAR);
  await gpu.reset();
  t.deepEqual(await states(), ['mapped']);
  iommu.write(BAR, Uint8Array.of(7));
  t.is(region(gpu, 0).read(0n, 1)[0], 7);
});

test('maps the BARs of all devices of a bus again after a hot reset, in every guest memory', async (t) => {
  const bus = new SimulatedBus();
  const [gpu, nic] = [device(t, 1, bus), device(t, 2, bus)];
  const [one, other] = [await rig(t), await rig(t, 'other')];
  await one.place(gpu, BAR);
  await one.place(nic, BAR + MiB);
  await other.place(nic, BAR);
  await gpu.hotReset([nic]);
  t.deepEqual([await one.states(), await other.states()], [['mapped', 'mapped'], ['mapped']]);
});

test('maps the BAR again after a function-level reset by config space', async (t) => {
  const { place, states } = await rig(t);
  const gpu = device(t, 1);
  await place(gpu, BAR);
  write16(gpu.config, 0x48n + 8n, FLR);
  t.deepEqual(await states(), ['mapped']);
});

test('maps the BAR again after a reset that wakes the device', async (t) => {
  const { place, states } = await rig(t);
  const gpu = device(t, 1);
  await place(gpu, BAR);
  write16(gpu.config, PMCSR, 3);
  t.deepEqual(await states(), ['failed ERR_MEMORY_FAULT']);
  await gpu.reset();
  t.deepEqual(await states(), ['mapped']);
  write16(gpu.config, PMCSR, 3);
  write16(gpu.config, PMCSR, 0);
  t.deepEqual(await states(), ['mapped'], 'and by itself, which resets it too');
});

test('does not reset a device whose BAR a target does not unmap', async (t) => {
  const { memory, place } = await rig(t);
  let resets = 0;
  const registers = { read: () => new Uint8Array(4), write: () => {}, reset: () => void resets++ };
  const bars = [
    { index: 0, length: MiB },
    { index: 1, length: 0x1000n, registers },
  ];
  const gpu = new SimulatedDevice({ bdf: '0000:01:03.0', bars, pcie: {} });
  t.teardown(() => gpu.close());
  const stubborn = {
    name: 'stubborn',
    mapDma: () => {},
    unmapDma: () => {
      throw new Error('not now');
    },
  };
  await memory.dmaMappers.addDmaMapper(stubborn);
  await place(gpu, BAR);
  await rejectsCode(t, gpu.reset(), 'ERR_UNMAP_FAILED');
  t.is(resets, 0);
  await memory.dmaMappers.targetClosed(stubborn);
  await gpu.reset();
  t.is(resets, 1);
});

/** Operations that revoke the IOMMU mappings of a BAR, each with the one that makes it mappable again. */
const RESETS: Readonly<Record<string, (gpu: SimulatedDevice, nic: SimulatedDevice) => unknown>> = {
  'a reset of the function': (gpu) => gpu.reset(),
  'a hot reset': (gpu, nic) => gpu.hotReset([nic]),
  'a reset of the other function by its bus': (gpu, nic) => nic.hotReset([gpu]),
  'a function-level reset by config space': (gpu) => write16(gpu.config, 0x48n + 8n, FLR),
  'memory decode off and on': (gpu) => {
    write16(gpu.config, 4n, 0);
    write16(gpu.config, 4n, 2);
  },
};

/** More than a change of these tests has await points; the test counts that the last ones come after it. */
const TICKS = 60;

for (const [what, reset] of Object.entries(RESETS)) {
  test(`maps the BAR again after ${what} at each await point of a change`, async (t) => {
    const bus = new SimulatedBus();
    const [gpu, nic] = [device(t, 1, bus), device(t, 2, bus)];
    const [one, other] = [await rig(t), await rig(t, 'other')];
    for (const { memory } of [one, other]) await memory.dmaMappers.addDmaMapper(new SlowTarget());
    await other.place(nic, BAR);
    const window = one.memory.newDeviceMemory({ name: 'gpu', length: MiB });
    await window.addMapping({ range: AddressRange.of(0n, MiB), backing: region(gpu, 0).backing() });
    const outcomes: Record<string, number[]> = {};
    let late = 0;
    for (let ticks = 0; ticks < TICKS; ticks++) {
      let placed = false;
      const change = window.mapToGuest(BAR).then(() => (placed = true));
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
      if (placed) late++;
      await Promise.all([reset(gpu, nic), change]);
      const outcome = `${String(await one.states())} and ${String(await other.states())}`;
      (outcomes[outcome] ??= []).push(ticks);
      await window.unmapFromGuest();
    }
    t.deepEqual(Object.keys(outcomes), ['mapped and mapped'], JSON.stringify(outcomes));
    t.true(late > 0, 'the last resets come after the change');
  });
}

test('maps the BAR again when a second guest memory maps it while the first one unmaps it', async (t) => {
  const gpu = device(t, 1);
  const [one, other] = [await rig(t), await rig(t, 'other')];
  await one.place(gpu, BAR);
  const window = other.memory.newDeviceMemory({ name: 'gpu', length: MiB });
  await window.addMapping({ range: AddressRange.of(0n, MiB), backing: region(gpu, 0).backing() });
  let change: Promise<void> | undefined;
  const target = {
    name: 'shows it elsewhere',
    mapDma: () => {},
    unmapDma: async () => {
      change ??= window.mapToGuest(BAR);
      await change;
    },
  };
  await one.memory.dmaMappers.addDmaMapper(target);
  await gpu.reset();
  t.deepEqual([await one.states(), await other.states()], [['mapped'], ['mapped']]);
});

/** A target whose calls take several microtasks. */
class SlowTarget {
  readonly name = 'slow';

  async mapDma(): Promise<void> {
    for (let tick = 0; tick < 5; tick++) await Promise.resolve();
  }

  async unmapDma(): Promise<void> {
    await this.mapDma();
  }
}
