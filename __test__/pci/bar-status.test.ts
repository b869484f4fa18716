// status() finds the window of a BAR by its region, not by its name, and reads the range of the BAR alone.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, AssignedDevice, SimulatedDevice } from '../../ts/index.ts';
import { MiB, Fixture } from './support/fixture.ts';
import { manyPages } from '../support/many-pages.ts';
import { valuesRead } from '../support/values-read.ts';

const GPA = 0xe000_0000n;
const WHOLE = AddressRange.of(GPA, MiB);

/** A device with one BAR of 1 MiB; several may have the same PCI address, as in two simulated machines. */
async function assignedAt(t: ExecutionContext, fixture: Fixture): Promise<AssignedDevice> {
  const device = new SimulatedDevice({ bdf: '0000:01:00.0', bars: [{ index: 0, length: MiB }] });
  const assigned = await AssignedDevice.create({ device, memory: fixture.memory });
  t.teardown(() => assigned.close());
  await assigned.configWrite(0x10, 4, Number(GPA));
  await assigned.configWrite(0x04, 2, 2);
  return assigned;
}

function facts(device: AssignedDevice): { mapped: string[]; hidden: string[]; unreachable: string[] } {
  const [bar] = device.status();
  return {
    mapped: bar?.mapped.map(String) ?? [],
    hidden: bar?.hidden.map(({ range, by }) => `${range} ${by}`) ?? [],
    unreachable: bar?.unreachable.map(({ range, target, state }) => `${target} ${range} ${state}`) ?? [],
  };
}

test('reports a region over a BAR as hiding it, even with the name of the BAR', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await assignedAt(t, fixture);
  const name = 'BAR 0 of 0000:01:00.0';
  const region = await fixture.memory.regions.addRegion({ name, range: AddressRange.of(GPA, 4096n), priority: 1 });
  await region.addMapping({ range: AddressRange.of(0n, 4096n), backing: 'private' });
  await region.mapToGuest();
  t.deepEqual(facts(device), {
    mapped: [`${AddressRange.between(GPA + 4096n, GPA + MiB)}`],
    hidden: [`${AddressRange.of(GPA, 4096n)} ${name}`],
    unreachable: [],
  });
});

test('reports for each of two devices with one PCI address the status of its own BAR', async (t) => {
  const fixture = await Fixture.create(t);
  const [first, second] = [await assignedAt(t, fixture), await assignedAt(t, fixture)];
  t.deepEqual(facts(first), { mapped: [`${WHOLE}`], hidden: [], unreachable: [] });
  t.deepEqual(facts(second), { mapped: [], hidden: [`${WHOLE} BAR 0 of 0000:01:00.0`], unreachable: [] });
});

test('reports a failed mapping for its own BAR, not for another BAR of the same name that it hides', async (t) => {
  const fixture = await Fixture.create(t);
  fixture.recorder.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
  const [first, second] = [await assignedAt(t, fixture), await assignedAt(t, fixture)];
  t.deepEqual(facts(first).unreachable, [`${fixture.recorder.name} ${WHOLE} failed`]);
  t.deepEqual(facts(second).unreachable, []);
});

test.serial('reads only the range of the BARs, whatever else is mapped', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await assignedAt(t, fixture);
  const few = await valuesRead(() => device.status());
  await manyPages(t, fixture.memory, 2000);
  t.is(await valuesRead(() => device.status()), few);
});
