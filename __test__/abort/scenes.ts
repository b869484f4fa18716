/**
 * A scene for each call that a signal aborts: the call, its queue, and what it does to the rest.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import type { ExecutionContext } from 'ava';
import { type AbortOptions, GuestMemory, VfioContainerManager, resetDevices } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { SimulatedBus, SimulatedDevice } from '../../ts/testing.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { BackendChoice } from '../../ts/vfio/backend-choice.ts';
import { VfioDevice } from '../../ts/vfio/vfio-device.ts';
import { Fixture } from '../pci/support/fixture.ts';
import { MEMORY, command, writeBar64 } from '../pci/support/guest.ts';
import { fakeSysfs } from '../support/fake-sysfs.ts';
import { PAGE } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

/** A call that occupies a queue. */
export interface Block {
  /** Lets it end. */
  release(): void;
  /** Resolves when it has ended. */
  readonly ended: Promise<unknown>;
  /** The entries that it adds to the log. */
  readonly log: readonly string[];
}

export interface Scene {
  /** Starts the call. */
  start(options: AbortOptions): Promise<unknown>;
  /** Occupies the queue in which the call waits. */
  block(): Block;
  readonly memory: GuestMemory;
  /** The calls of targets and hardware, in order. */
  readonly log: string[];
  /** Called before an entry is added to the log. */
  onEntry: (entry: string) => unknown;
  /** The log of a call that is not aborted. */
  readonly whole: readonly string[];
  /** The log of a call that is aborted during an entry, by that entry. */
  readonly aborted: Readonly<Record<string, readonly string[]>>;
  /** The entries at which an abort leaves guest memory as it was. */
  readonly undoes: readonly string[];
}

/** A log whose entries call `onEntry` first. */
function logged(): Pick<Scene, 'log' | 'onEntry'> & { add(entry: string): void } {
  const scene: ReturnType<typeof logged> = {
    log: [],
    onEntry: (): unknown => undefined,
    add: (entry) => {
      scene.log.push(entry);
      scene.onEntry(entry);
    },
  };
  return scene;
}

/** Occupies the queue of a guest memory. */
function blockChanges(memory: GuestMemory): Block {
  const { promise, resolve } = gate();
  return { release: resolve, ended: guestAddressSpaceOf(memory).betweenChanges(() => promise), log: [] };
}

function gate(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve: () => resolve() };
}

async function allocation(t: ExecutionContext): Promise<Scene> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  const scene = logged();
  const target = new RecordingTarget();
  target.judge = ({ op, range }) => scene.add(`${op} ${range}`);
  await memory.dmaMappers.addDmaMapper(target);
  const map = 'map 0x1000..0x2000';
  return Object.assign(scene, {
    memory,
    block: () => blockChanges(memory),
    start: (options: AbortOptions) => DmaBuffer.allocate(memory, PAGE, options),
    whole: [map],
    aborted: { [map]: [map, 'unmap 0x1000..0x2000'] },
    undoes: [map],
  });
}

const BDF = '0000:03:00.0';
const OTHER = '0000:04:00.0';

/** A native device without BARs, alone on its bus, whose resets and close are logged. */
function nativeDevice(add: (entry: string) => void): NativeVfioDevice {
  const region = { length: 256n, fileOffset: 0n, mmapAreas: new BigUint64Array(), msixMappable: false };
  const native: Partial<NativeVfioDevice> = {
    memoryFile: () => NativeMemoryFile.create(PAGE, BDF, 0),
    regionInfo: (index) => (index === 7 ? { ...region, readable: true, writable: true } : null),
    irqCount: () => 0,
    reset: async () => add('reset'),
    hotResetInfo: () => [BDF],
    hotReset: async () => add('reset'),
    closeAsync: async () => add('close'),
  };
  return native as NativeVfioDevice;
}

async function vfioReset(t: ExecutionContext, ofBus: boolean): Promise<Scene> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  const scene = logged();
  const device = new VfioDevice(BDF, nativeDevice(scene.add), [], { memory, close: async () => {} });
  return Object.assign(scene, {
    memory,
    block: () => blockChanges(memory),
    start: (options: AbortOptions) => (ofBus ? device.hotReset([], options) : device.reset(options)),
    whole: ['reset'],
    aborted: { reset: ['reset'] },
    undoes: ['reset'],
  });
}

async function open(t: ExecutionContext): Promise<Scene> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  const scene = logged();
  const devices = { [BDF]: { driver: 'vfio-pci', group: 3 }, [OTHER]: { driver: 'vfio-pci', group: 4 } };
  const sysfs = fakeSysfs(t, devices);
  sysfs.hostAddresses = () => [];
  const vfio = new VfioContainerManager(memory, {}, sysfs);
  const genuine = BackendChoice.prototype.open;
  t.teardown(() => void (BackendChoice.prototype.open = genuine));
  const other = gate();
  BackendChoice.prototype.open = async ({ bdf }) => {
    if (bdf === OTHER) {
      await other.promise;
      throw new Error('the other device cannot be opened');
    }
    scene.add('open');
    const leave = async (): Promise<void> => scene.add('leave');
    return { handle: nativeDevice(scene.add), prepareLeave: async () => {}, leave };
  };
  return Object.assign(scene, {
    memory,
    block: () => ({ release: other.resolve, ended: vfio.open(OTHER).catch(() => {}), log: [] }),
    start: async (options: AbortOptions) => {
      const device = await vfio.open(BDF, options);
      await vfio.close();
      return device;
    },
    whole: ['open', 'close', 'leave'],
    aborted: { open: ['open', 'close', 'leave'] },
    undoes: ['open'],
  });
}

const AT = 0x40_0000_0000n;
const PLACE = '0x4000000000..0x4000100000';

async function simulatedReset(t: ExecutionContext, ofBus: boolean): Promise<Scene> {
  const fixture = await Fixture.create(t);
  const scene = logged();
  const registers = {
    read: (_: bigint, n: number) => new Uint8Array(n),
    write: () => {},
    reset: () => scene.add('reset'),
  };
  const contents = { index: 2, length: 1n << 20n, kind: 'memory64' } as const;
  const bars = [contents, { index: 0, length: PAGE, registers }];
  const device = new SimulatedDevice({ bdf: '0000:00:08.0', bars, resettable: true, bus: new SimulatedBus() });
  t.teardown(() => device.close());
  const window = fixture.memory.newDeviceMemory({ name: 'BAR 2', length: contents.length });
  const backing = device.regions[2]?.backing();
  if (backing === undefined) throw new Error('the device has a BAR 2');
  await window.addMapping({ backing });
  await window.mapToGuest(AT);
  fixture.recorder.judge = ({ op, range }) => scene.add(`${op} ${range}`);
  const [unmap, map] = [`unmap ${PLACE}`, `map ${PLACE}`];
  return Object.assign(scene, {
    memory: fixture.memory,
    block: () => blockChanges(fixture.memory),
    start: (options: AbortOptions) => (ofBus ? device.hotReset([], options) : device.reset(options)),
    whole: [unmap, 'reset', map],
    aborted: { [unmap]: [unmap, map], reset: [unmap, 'reset', map] },
    undoes: [unmap, 'reset'],
  });
}

async function assignedReset(t: ExecutionContext, together: boolean): Promise<Scene> {
  const fixture = await Fixture.create(t);
  const scene = logged();
  const spy = fixture.spy(fixture.simulated());
  spy.failWith = (what) => (what === 'reset' ? scene.add('reset') : undefined);
  const device = await fixture.assign(spy);
  await writeBar64(device, 2, AT);
  await command(device, MEMORY);
  fixture.recorder.judge = ({ op, range }) => scene.add(`${op} ${range}`);
  const [unmap, map] = [`unmap ${PLACE}`, `map ${PLACE}`];
  return Object.assign(scene, {
    memory: fixture.memory,
    block: () => {
      const changes = blockChanges(fixture.memory);
      return { ...changes, ended: Promise.all([changes.ended, command(device, 0)]), log: [unmap] };
    },
    start: (options: AbortOptions) => (together ? resetDevices([device], options) : device.reset(options)),
    whole: [unmap, 'reset'],
    aborted: { [unmap]: [unmap, map], reset: [unmap, 'reset'] },
    undoes: [unmap],
  });
}

export const SCENES: Readonly<Record<string, (t: ExecutionContext) => Promise<Scene>>> = {
  'DmaBuffer.allocate': allocation,
  'VfioDevice.reset': (t) => vfioReset(t, false),
  'VfioDevice.hotReset': (t) => vfioReset(t, true),
  'VfioContainerManager.open': open,
  'SimulatedDevice.reset': (t) => simulatedReset(t, false),
  'SimulatedDevice.hotReset': (t) => simulatedReset(t, true),
  'AssignedDevice.reset': (t) => assignedReset(t, false),
  resetDevices: (t) => assignedReset(t, true),
};
