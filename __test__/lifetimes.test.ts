// Objects that own something end alike: one verb, once or many times, by hand or at the end of a scope.
import test, { type ExecutionContext } from 'ava';
import { join } from 'node:path';
import {
  AssignedDevice,
  EventFd,
  GuestMemory,
  MemoryFile,
  UnixSocket,
  VfioContainerManager,
  startMigration,
  startRestore,
} from '../ts/index.ts';
import { DmaBuffer } from '../ts/driver.ts';
import { SimulatedDevice, SimulatedIommu } from '../ts/testing.ts';
import { recordJournal } from '../ts/inspect.ts';
import { guestAddressSpaceOf } from '../ts/guest/guest-memory.ts';
import { DirtyTracking } from '../ts/guest/dirty-tracking.ts';
import { duplicateDescriptor } from '../ts/owned-descriptor.ts';
import { publicMethods } from './public-arguments/surface.ts';
import { stubDevice } from './public-arguments/calls/vfio.ts';
import { stubbedMachine } from './support/native-machine-stub.ts';
import { PAGE, pages } from './support/pages.ts';
import { scratchFolder } from './support/scratch.ts';
import { pairOf } from './vhost-user/support/scene.ts';

/** The verb of each class, by what its objects own. */
const ENDS: Readonly<Record<string, 'close' | 'remove' | 'stop'>> = {
  // a descriptor, a device or memory
  MemoryFile: 'close',
  GuestMemory: 'close',
  EventFd: 'close',
  UnixSocket: 'close',
  OwnedDescriptor: 'close',
  DmaBuffer: 'close',
  AssignedDevice: 'close',
  SimulatedDevice: 'close',
  VfioContainerManager: 'close',
  VfioDevice: 'close',
  VirtualMachine: 'close',
  VhostUserTarget: 'close',
  Journal: 'close',
  MigrationSource: 'close',
  MigrationTarget: 'close',
  // a part of guest memory
  Region: 'remove',
  DeviceMemory: 'remove',
  Ram: 'remove',
  DmaMapperHandle: 'remove',
  // a handler, a connection or a callback
  Registration: 'remove',
  // an activity that was started
  DirtyTracking: 'stop',
};

/** Classes with such a method that ends another object, its argument. */
const EDITORS = ['MemoryChange', 'PciHostBridge'];

/** Methods with such a name that end something else. A machine runs again after `stop`; a migration stops the VM. */
const OTHER_ENDS: Readonly<Record<string, string>> = { VirtualMachine: 'stop', MigrationSource: 'stop' };

/** Classes whose verb returns no promise. */
const SYNCHRONOUS = ['MemoryFile', 'EventFd', 'UnixSocket', 'OwnedDescriptor', 'Journal', 'Registration'];

test('each class with an end has one of the verbs, and disposes with it', async (t) => {
  const found: Record<string, string> = {};
  for (const [name, members] of await publicMethods()) {
    if (EDITORS.includes(name)) continue;
    const ends = members.filter((member) => member === 'close' || member === 'remove' || member === 'stop');
    const verbs = ends.filter((member) => member !== OTHER_ENDS[name]);
    const symbols = members.filter((member) => member === Symbol.dispose || member === Symbol.asyncDispose);
    if (verbs.length + symbols.length === 0) continue;
    const expected = SYNCHRONOUS.includes(name) ? Symbol.dispose : Symbol.asyncDispose;
    const disposes = symbols.length === 1 && symbols[0] === expected;
    found[name] = disposes ? verbs.join(', ') : `${verbs.join(', ')} without its symbol`;
  }
  t.deepEqual(found, ENDS);
});

/** An object of each class. */
async function objects(t: ExecutionContext): Promise<Readonly<Record<string, object>>> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  const other = (bdf: string): SimulatedDevice => new SimulatedDevice({ bdf, bars: [{ index: 0, length: PAGE }] });
  return {
    MemoryFile: MemoryFile.create(PAGE),
    GuestMemory: await GuestMemory.create({ addressWidth: 32 }),
    EventFd: EventFd.create(),
    UnixSocket: UnixSocket.pair()[0],
    OwnedDescriptor: duplicateDescriptor(0),
    DmaBuffer: await DmaBuffer.allocate(memory, PAGE),
    AssignedDevice: await AssignedDevice.create({ device: other('0000:00:04.0'), memory }),
    SimulatedDevice: other('0000:00:05.0'),
    VfioContainerManager: new VfioContainerManager(memory),
    VfioDevice: stubDevice(memory),
    VhostUserTarget: (await pairOf(t)).target,
    VirtualMachine: (await stubbedMachine(t)).vm,
    Journal: recordJournal(memory, join(scratchFolder(t), 'journal')),
    MigrationSource: await startMigration({ memory, devices: {} }),
    MigrationTarget: await startRestore({ memory, devices: {} }),
    Region: await memory.regions.addRegion({ name: 'r', range: pages(16, 1) }),
    Ram: await memory.addRam({ start: 64n * PAGE, length: PAGE }),
    DeviceMemory: memory.newDeviceMemory({ name: 'w', length: PAGE }),
    DmaMapperHandle: await memory.dmaMappers.addDmaMapper(new SimulatedIommu()),
    Registration: (await stubbedMachine(t)).vm.ports.add(0x510, 1, { read: () => 0, write: () => {} }),
    DirtyTracking: new DirtyTracking(guestAddressSpaceOf(memory), () => {}),
  };
}

for (const [name, verb] of Object.entries(ENDS)) {
  test(`${name}.${verb} is idempotent, and so is its disposal`, async (t) => {
    const symbol = SYNCHRONOUS.includes(name) ? Symbol.dispose : Symbol.asyncDispose;
    for (const order of [
      [verb, verb, symbol],
      [symbol, symbol, verb],
    ]) {
      const object = (await objects(t))[name] as Record<string | symbol, () => unknown>;
      for (const member of order) await t.notThrowsAsync(async () => object[member]?.());
      await t.notThrowsAsync(Promise.all([object[verb]?.(), object[verb]?.()]));
    }
  });
}
