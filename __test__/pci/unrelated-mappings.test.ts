// A guest access to one device reads only the mappings of that device.
import test, { type ExecutionContext } from 'ava';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { AssignedDevice, DmaMapperHandle, GuestMemory } from '../../ts/index.ts';
import { recordJournal } from '../../ts/inspect.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { manyPages } from '../support/many-pages.ts';
import { valuesRead } from '../support/values-read.ts';
import { Fixture, DEFAULTS } from './support/fixture.ts';

const MEMORY_DECODE = 2;

interface AssignedWithBars {
  readonly memory: GuestMemory;
  readonly device: AssignedDevice;
  readonly handle: DmaMapperHandle;
}

/** Returns a device with placed BARs, and a target that maps them. */
async function assignWithBars(t: ExecutionContext): Promise<AssignedWithBars> {
  const fixture = await Fixture.create(t);
  const handle = await fixture.memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'late', rules: 'iommufd' }));
  const device = await fixture.assign(fixture.simulated(DEFAULTS));
  await device.configWrite(0x10, 4, 0xe000_0000);
  await device.configWrite(0x18, 4, 0xe010_0000);
  await device.configWrite(0x1c, 4, 0);
  await device.configWrite(0x04, 2, MEMORY_DECODE);
  return { memory: fixture.memory, device, handle };
}

async function moveAndBack({ device }: AssignedWithBars): Promise<void> {
  await device.configWrite(0x10, 4, 0xe100_0000);
  await device.configWrite(0x10, 4, 0xe000_0000);
}

const ACTS: Readonly<Record<string, (fixture: AssignedWithBars) => unknown>> = {
  'memory decode off and on': async ({ device }) => {
    await device.configWrite(0x04, 2, 0);
    await device.configWrite(0x04, 2, MEMORY_DECODE);
  },
  'a BAR move and back': moveAndBack,
  'a refresh of device memory': ({ handle }) => handle.refresh(),
};

for (const [what, act] of Object.entries(ACTS)) {
  test.serial(`${what} reads no mappings of other regions`, async (t) => {
    const fixture = await assignWithBars(t);
    await act(fixture);
    const few = await valuesRead(() => act(fixture));
    await manyPages(t, fixture.memory, 2000);
    t.is(await valuesRead(() => act(fixture)), few);
  });
}

test.serial('publishes the event of a BAR move without reading mappings of other regions', async (t) => {
  const fixture = await assignWithBars(t);
  let events = 0;
  const listener = (): void => void events++;
  subscribe('peerdma:pci.bar', listener);
  t.teardown(() => void unsubscribe('peerdma:pci.bar', listener));
  const few = await valuesRead(() => moveAndBack(fixture));
  await manyPages(t, fixture.memory, 2000);
  t.is(await valuesRead(() => moveAndBack(fixture)), few);
  t.is(events, 4);
});

test.serial('journals a BAR move without reading mappings of other regions', async (t) => {
  const fixture = await assignWithBars(t);
  await manyPages(t, fixture.memory, 10);
  using journal = recordJournal(fixture.memory, '/dev/null');
  const few = await valuesRead(() => moveAndBack(fixture));
  await manyPages(t, fixture.memory, 2000);
  t.is(await valuesRead(() => moveAndBack(fixture)), few);
  t.is(journal.failure, undefined);
});
