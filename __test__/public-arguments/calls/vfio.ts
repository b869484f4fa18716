/**
 * Calls of VFIO devices up to the kernel: devices are stubs here.
 *
 * __test__/vfio/wrong-caller.test.ts uses real ones.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import type { ExecutionContext } from 'ava';
import { GuestMemory, VfioContainerManager } from '../../../ts/index.ts';
import { guestAddressSpaceOf } from '../../../ts/guest/guest-memory.ts';
import { DirtyPages } from '../../../ts/dma/dirty-pages.ts';
import { DirtyTracking } from '../../../ts/guest/dirty-tracking.ts';
import { VfioDevice } from '../../../ts/vfio/vfio-device.ts';
import { PAGE } from '../../support/pages.ts';
import { type Calls, RANGE, options } from '../values.ts';

const BDF = '0000:03:00.0';

export async function vfioCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  t.teardown(() => memory.close());
  const device = stubDevice(memory);
  const { config, interrupts } = device;
  const tracking = new DirtyTracking(guestAddressSpaceOf(memory), () => {});
  const manager = new VfioContainerManager(memory);
  return {
    'new VfioContainerManager': {
      memory: (value) => new VfioContainerManager(value),
      ...options(
        { backend: 'auto', peerToPeer: 'off', iommufd: undefined },
        (given) => new VfioContainerManager(memory, given),
      ),
    },
    'VfioContainerManager#open': {
      device: (value) => manager.open(value),
      ...options(
        { bdf: BDF, cdev: undefined, group: undefined, container: undefined, iommuGroup: 1, hostAddresses: [] },
        (given) => manager.open(given),
      ),
      ...options(
        { vfToken: undefined, signal: undefined, addressSpace: 'own', peerToPeerDomains: ['default'] },
        (given) => manager.open(BDF, given),
      ),
    },
    'DirtyTracking#readDirty': { range: (value) => tracking.readDirty(value) },
    'DirtyPages#contains': { gpa: (value) => new DirtyPages(RANGE, PAGE).contains(value) },
    'VfioDevice#hotReset': {
      others: (value) => device.hotReset(value),
      'one of others': (value) => device.hotReset([value]),
      ...options({ signal: undefined }, (given) => device.hotReset([], given)),
    },
    'VfioDevice#reset': options({ signal: undefined }, (given) => device.reset(given)),
    'VfioDevice#setVfToken': { vfToken: (value) => device.setVfToken(value) },
    'VfioInterrupts#count': { kind: (value) => interrupts.count(value) },
    'VfioInterrupts#connect': {
      kind: (value) => interrupts.connect(value, [undefined]),
      eventFds: (value) => interrupts.connect('msi', value),
      'one of eventFds': (value) => interrupts.connect('msi', [value]),
    },
    'VfioInterrupts#reconnect': {
      kind: (value) => interrupts.reconnect(value, 0, undefined),
      vector: (value) => interrupts.reconnect('msi', value, undefined),
      eventFd: (value) => interrupts.reconnect('msi', 0, value),
    },
    'VfioInterrupts#disconnect': { kind: (value) => interrupts.disconnect(value) },
    'VfioInterrupts#unmaskIntxOn': { eventFd: (value) => interrupts.unmaskIntxOn(value) },
    'VfioRegion#backing': { offset: (value) => config.backing(value) },
    'VfioRegion#read': { offset: (value) => config.read(value, 1), length: (value) => config.read(0n, value) },
    'VfioRegion#write': {
      offset: (value) => config.write(value, new Uint8Array(1)),
      bytes: (value) => config.write(0n, value),
    },
    'VfioRegion#writeAsync': {
      offset: (value) => config.writeAsync(value, new Uint8Array(1)),
      bytes: (value) => config.writeAsync(0n, value),
    },
    ...nativeCalls(config),
  };
}

/** The native core checks what these take. */
function nativeCalls(config: VfioDevice['config']): Record<string, Calls> {
  return {
    'VfioRegion#read32': { offset: (value) => config.read32(value) },
    'VfioRegion#write32': { offset: (value) => config.write32(value, 0), value: (value) => config.write32(0n, value) },
    'VfioRegion#read64': { offset: (value) => config.read64(value) },
    'VfioRegion#write64': { offset: (value) => config.write64(value, 0n), value: (value) => config.write64(0n, value) },
  };
}

/** A device whose native handle is a stub. */
export function stubDevice(memory: GuestMemory): VfioDevice {
  const region = { length: 256n, fileOffset: 0n, mmapAreas: new BigUint64Array(), msixMappable: false };
  const native: Partial<NativeVfioDevice> = {
    memoryFile: () => NativeMemoryFile.create(PAGE, BDF, 0),
    regionInfo: (index) => (index === 7 ? { ...region, readable: true, writable: true } : null),
    irqCount: () => 1,
    connectIrqs: () => {},
    disconnectIrqs: () => {},
    unmaskIntxOn: () => {},
    readRegion: () => {},
    writeRegion: () => {},
    writeRegionAsync: async () => {},
    read32: () => 0,
    write32: () => {},
    read64: () => 0n,
    write64: () => {},
    setVfToken: () => {},
    hotResetInfo: () => [BDF],
    reset: async () => {},
    hotReset: async () => {},
  };
  return new VfioDevice(BDF, native as NativeVfioDevice, [], { memory, close: async () => {} });
}
