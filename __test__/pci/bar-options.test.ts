/** Options of BARs: trapped for the guest, hidden from other devices, in a peer-to-peer domain. */
import test from 'ava';
import { AssignedDevice } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { MEMORY, command, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const HIGH = 0x40_0000_0000n;

/** A device with BAR 2 at an address, and a target for the processors of the guest. */
async function placed(t: Parameters<typeof Fixture.create>[0] & Parameters<typeof rejectsCode>[0], bar: object) {
  const fixture = await Fixture.create(t);
  const processors = new RecordingTarget({ name: 'cpu', mapsForProcessors: true });
  await fixture.memory.dmaMappers.addDmaMapper(processors);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device, { 2: bar });
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  const mappedToProcessors = (): boolean => processors.held().some(({ range }) => range.contains(HIGH));
  return { fixture, device, assigned, mappedToProcessors };
}

test('a BAR without options is mapped for processors and devices', async (t) => {
  const { fixture, device, mappedToProcessors } = await placed(t, {});
  t.true(fixture.reaches(HIGH, device, 2));
  t.true(mappedToProcessors());
});

test('a BAR with mmap: false traps, works by mmioRead and mmioWrite, and takes DMA of other devices', async (t) => {
  const { fixture, device, assigned, mappedToProcessors } = await placed(t, { mmap: false });
  t.true(fixture.reaches(HIGH, device, 2));
  t.false(mappedToProcessors());
  assigned.mmioWrite(HIGH + 0x100n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(assigned.mmioRead(HIGH + 0x100n, 4), Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(fixture.find(HIGH + 0x100n, 4), Uint8Array.of(1, 2, 3, 4));
  const status = assigned.status().find(({ bar }) => bar === 2);
  t.deepEqual(
    status?.trapped.map(({ range, reason }) => [range.start, range.length, reason]),
    [[HIGH, MiB, 'mmap is off for the BAR']],
  );
  t.deepEqual(
    status?.mapped.map(({ start, length }) => [start, length]),
    [[HIGH, MiB]],
  );
  await writeBar64(assigned, 2, HIGH + MiB);
  t.true(fixture.reaches(HIGH + MiB, device, 2));
  t.false(mappedToProcessors());
});

test('a BAR with peerToPeer: false is mapped for the processors only', async (t) => {
  const { fixture, device, assigned, mappedToProcessors } = await placed(t, { peerToPeer: false });
  t.false(fixture.reaches(HIGH, device, 2));
  t.true(mappedToProcessors());
  const status = assigned.status().find(({ bar }) => bar === 2);
  t.deepEqual(
    status?.unreachable.map(({ target, state }) => [target, state]),
    ['iommu', 'iommufd', 'recorder'].map((target) => [target, 'skipped']),
  );
});

test('a BAR can be pinned and trapped at once', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device, { 2: { address: HIGH, mmap: false } });
  await command(assigned, MEMORY);
  t.true(fixture.reaches(HIGH, device, 2));
  t.like(
    assigned.status().find(({ bar }) => bar === 2),
    { pinned: true },
  );
});

test('devices reach the BARs of their own peer-to-peer domains only', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const { memory } = fixture;
  const near = new SimulatedIommu({ name: 'near' });
  await memory.dmaMappers.addDmaMapper(near, { peerToPeerDomains: ['disks', 'default'] });
  const assigned = await AssignedDevice.create({ device, memory, peerToPeerDomain: 'disks' });
  t.teardown(() => assigned.close());
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  t.false(fixture.reaches(HIGH, device, 2));
  near.write(HIGH, Uint8Array.of(7));
  t.deepEqual(device.regions[2]?.read(0n, 1), Uint8Array.of(7));
});

test('rejects invalid options of BARs, and leaves the device to the caller', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  t.teardown(() => device.close());
  const { memory } = fixture;
  for (const options of [
    { bars: { 2: { mmap: 'no' } } },
    { bars: { 2: { peerToPeer: 'off' } } },
    { bars: { 2: { address: 5 } } },
    { bars: { 2: { address: 'guest' } } },
    { bars: { 2: null } },
    { bars: { 1: {} } },
    { bars: { 6: {} } },
    { peerToPeerDomain: '' },
    { peerToPeerDomain: 5 },
  ] as object[]) {
    await rejectsCode(t, AssignedDevice.create({ device, memory, ...options }), 'ERR_INVALID_ARGUMENT');
  }
  await (await AssignedDevice.create({ device, memory })).close();
});
