// What a guest does to one device reads what is mapped of that device, and nothing of what else is mapped.
import test, { type ExecutionContext } from 'ava';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import {
  type AssignedDevice,
  type DmaMapperHandle,
  type GuestMemory,
  SimulatedIommu,
  recordJournal,
} from '../../ts/index.ts';
import { manyPages } from '../support/many-pages.ts';
import { valuesRead } from '../support/values-read.ts';
import { Scene, USUAL } from './support/scene.ts';

const MEMORY_DECODE = 2;

interface Placed {
  readonly memory: GuestMemory;
  readonly device: AssignedDevice;
  readonly handle: DmaMapperHandle;
}

/** A device with BARs placed, and a target that has them. */
async function placed(t: ExecutionContext): Promise<Placed> {
  const scene = await Scene.create(t);
  const handle = await scene.memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'late', rules: 'iommufd' }));
  const device = await scene.assign(scene.simulated(USUAL));
  await device.configWrite(0x10, 4, 0xe000_0000);
  await device.configWrite(0x18, 4, 0xe010_0000);
  await device.configWrite(0x1c, 4, 0);
  await device.configWrite(0x04, 2, MEMORY_DECODE);
  return { memory: scene.memory, device, handle };
}

async function moveAndBack({ device }: Placed): Promise<void> {
  await device.configWrite(0x10, 4, 0xe100_0000);
  await device.configWrite(0x10, 4, 0xe000_0000);
}

const ACTS: Readonly<Record<string, (scene: Placed) => unknown>> = {
  'memory decode off and on': async ({ device }) => {
    await device.configWrite(0x04, 2, 0);
    await device.configWrite(0x04, 2, MEMORY_DECODE);
  },
  'a BAR move and back': moveAndBack,
  'a refresh of device memory': ({ handle }) => handle.refresh(),
};

for (const [what, act] of Object.entries(ACTS)) {
  test.serial(`${what} reads nothing of what else is mapped`, async (t) => {
    const scene = await placed(t);
    await act(scene);
    const few = await valuesRead(() => act(scene));
    await manyPages(t, scene.memory, 2000);
    t.is(await valuesRead(() => act(scene)), few);
  });
}

test.serial('an event of a BAR that moves is made without reading what else is mapped', async (t) => {
  const scene = await placed(t);
  let events = 0;
  const listener = (): void => void events++;
  subscribe('peerdma:pci.bar', listener);
  t.teardown(() => void unsubscribe('peerdma:pci.bar', listener));
  const few = await valuesRead(() => moveAndBack(scene));
  await manyPages(t, scene.memory, 2000);
  t.is(await valuesRead(() => moveAndBack(scene)), few);
  t.is(events, 4);
});

test.serial('a journal writes down a BAR move without reading what else is mapped', async (t) => {
  const scene = await placed(t);
  await manyPages(t, scene.memory, 10);
  using journal = recordJournal(scene.memory, '/dev/null');
  const few = await valuesRead(() => moveAndBack(scene));
  await manyPages(t, scene.memory, 2000);
  t.is(await valuesRead(() => moveAndBack(scene)), few);
  t.is(journal.failure, undefined);
});
