/**
 * Calls of simulated IOMMUs and devices, and of devices that are assigned to a guest.
 */
import type { ExecutionContext } from 'ava';
import {
  AssignedDevice,
  GuestMemory,
  MemoryFile,
  type PhysicalFunction,
  nvidiaConfigMirrors,
  nvidiaP2pClique,
  resetDevices,
} from '../../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu } from '../../../ts/testing.ts';
import { PAGE } from '../../support/pages.ts';
import { type Anything, type Calls, RANGE, options } from '../values.ts';

const DEVICE = {
  bdf: '0000:00:05.0',
  bars: [{ index: 0, length: PAGE }],
  rom: { length: PAGE, contents: undefined },
  config: undefined,
  ids: {},
  powerManagement: {},
  msi: {},
  msix: { vectors: 1, bar: 0 },
  pcie: {},
  advancedFeatures: true,
  interruptPin: true,
  resettable: true,
  iommu: undefined,
  bus: undefined,
  migration: {},
};
const BAR = { index: 1, length: PAGE, kind: 'memory32', prefetchable: false, contents: undefined };
const MSIX = { vectors: 1, bar: 0, tableOffset: 0n, pendingOffset: 16n };
const IDS = { vendor: 1, device: 1, revision: 1, class: 1, subsystemVendor: 1, subsystem: 1 };

export async function simulationCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  const file = MemoryFile.create(PAGE);
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: 2n * PAGE }], pcie: {} });
  const free = new SimulatedDevice({ bdf: '0000:00:06.0', bars: [{ index: 0, length: 2n * PAGE }] });
  const assigned = await AssignedDevice.create({ device, memory });
  t.teardown(async () => {
    await assigned.close();
    await free.close();
    await memory.close();
    file.close();
  });
  return {
    ...iommuCalls(file),
    ...deviceCalls(t, free),
    ...assignedCalls(memory, assigned, free),
    nvidiaP2pClique: { clique: nvidiaP2pClique },
    nvidiaConfigMirrors: options({ legacyVga: true }, nvidiaConfigMirrors),
    resetDevices: {
      devices: (value) => resetDevices(value),
      'one of devices': (value) => resetDevices([value]),
      ...options({ signal: undefined }, (given) => resetDevices([], given)),
    },
  };
}

function iommuCalls(file: MemoryFile): Record<string, Calls> {
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  const backing = { file, offset: 0n };
  const request = { range: RANGE, hostMemory: undefined, backing, writable: true, kind: 'ram', name: 'x' };
  const map = (given: Anything): void => {
    iommu.mapDma(given);
    iommu.unmapDma(RANGE);
  };
  const mapBatch = (given: Anything): void => {
    iommu.mapDmaBatch(given);
    iommu.unmapDma(RANGE);
  };
  return {
    'new SimulatedIommu': {
      ...options(
        { name: 'x', rules: 'type1v2', pageSize: PAGE, iovaRanges: [RANGE], maxMappings: 1 },
        (given) => new SimulatedIommu(given),
      ),
      'one of iovaRanges': (value) => new SimulatedIommu({ iovaRanges: [value] }),
    },
    'SimulatedIommu#mapDma': {
      ...options(request, map),
      ...options({ ...backing }, (given) => map({ ...request, backing: given })),
    },
    'SimulatedIommu#mapDmaBatch': { requests: mapBatch, ...options(request, (given) => mapBatch([given])) },
    'SimulatedIommu#unmapDma': { range: (value) => iommu.unmapDma(value) },
    'SimulatedIommu#isRevoked': { range: (value) => iommu.isRevoked(value) },
    'SimulatedIommu#read': { iova: (value) => iommu.read(value, 1), length: (value) => iommu.read(0n, value) },
    'SimulatedIommu#write': {
      iova: (value) => iommu.write(value, new Uint8Array(1)),
      bytes: (value) => iommu.write(0n, value),
    },
  };
}

function deviceCalls(t: ExecutionContext, device: SimulatedDevice): Record<string, Calls> {
  const make = (given: Anything): Promise<void> => new SimulatedDevice(given).close();
  const part = (name: string, valid: Readonly<Record<string, unknown>>): Calls =>
    Object.fromEntries(
      Object.entries(options(valid, (given) => make({ ...DEVICE, [name]: given }))).map(([key, call]) => [
        `${name} ${key}`,
        call,
      ]),
    );
  const bars = (bar: Anything): Promise<void> => make({ bdf: DEVICE.bdf, bars: [bar] });
  const edu = { bdf: DEVICE.bdf, hostAddress: undefined, iommu: undefined, bus: undefined, resettable: true };
  const edus = (given: Anything): Promise<void> => SimulatedDevice.edu(given).close();
  const reading = async (bytes: Anything): Promise<void> => {
    const made = SimulatedDevice.edu({ bdf: DEVICE.bdf, iommu: { read: () => bytes, write: () => {} } });
    made.config.write(4n, Uint8Array.of(6, 0));
    try {
      made.dmaRead(0n, 1);
    } finally {
      await made.close();
    }
  };
  const own = new SimulatedDevice({ bdf: '0000:00:07.0', iommu: new SimulatedIommu() });
  t.teardown(() => own.close());
  own.config.write(4n, Uint8Array.of(4, 0));
  return {
    'new SimulatedDevice': {
      ...options(DEVICE, make),
      ...part('rom', { length: PAGE, contents: undefined }),
      ...part('ids', IDS),
      ...part('powerManagement', { noSoftReset: true }),
      ...part('msi', { vectors: 1, address64: true, masking: true }),
      ...part('msix', MSIX),
      ...part('pcie', { flr: true }),
      ...part('migration', { preCopy: true, p2p: true, dmaLog: true }),
      ...options({ ...BAR, mmapAreas: [RANGE], hostAddress: 0n }, bars),
      ...options({ read: () => new Uint8Array(4), write: () => {}, reset: () => {} }, (given) =>
        bars({ index: 0, length: PAGE, registers: given }),
      ),
      'one of mmapAreas': (value) => bars({ index: 0, length: PAGE, mmapAreas: [value] }),
    },
    'SimulatedDevice.edu': {
      ...options(edu, edus),
      ...options({ read: () => new Uint8Array(1), write: () => {} }, (iommu) => edus({ bdf: DEVICE.bdf, iommu })),
      'what is read': reading,
    },
    'SimulatedDevice#dmaRead': { iova: (value) => own.dmaRead(value, 1), length: (value) => own.dmaRead(0n, value) },
    'SimulatedDevice#dmaWrite': {
      iova: (value) => own.dmaWrite(value, new Uint8Array(1)),
      bytes: (value) => own.dmaWrite(0n, value),
    },
    'SimulatedDevice#queueDmaWrite': {
      iova: (value) => own.queueDmaWrite(value, new Uint8Array(1)),
      bytes: (value) => own.queueDmaWrite(0n, value),
    },
    'SimulatedDevice#raise': {
      kind: (value) => device.raise(value),
      vector: (value) => device.raise('error', value),
    },
    'SimulatedDevice#reset': options({ signal: undefined }, (given) => device.reset(given)),
    'SimulatedDevice#hotReset': {
      others: (value) => device.hotReset(value),
      ...options({ signal: undefined }, (given) => device.hotReset([], given)),
    },
  };
}

/** Changes by the VMM, each with one part of another type. */
function changes(memory: GuestMemory, own: PhysicalFunction): Calls {
  const make = async (given: object): Promise<void> =>
    (await AssignedDevice.create({ device: { ...own }, memory, ...given })).close();
  const capability = { id: 9, body: Uint8Array.of(4, 0), offset: 0x40, preferredOffsets: [0x40] };
  const ids = { vendorId: 1, deviceId: 1, subsystemVendorId: 1, subsystemId: 1, revisionId: 1, classCode: 1 };
  const methods = { read: undefined, write: undefined };
  const mirror = { bar: 0, offset: 0n, length: 8n, msiAcknowledge: true };
  const named = (name: string, calls: Calls): Calls =>
    Object.fromEntries(Object.entries(calls).map(([key, call]) => [`${name} ${key}`, call]));
  const preferred = (value: Anything): Promise<void> =>
    make({ capabilities: [{ ...capability, preferredOffsets: [value] }] });
  return {
    ...named(
      'capability',
      options(capability, (one) => make({ capabilities: [one] })),
    ),
    'one of preferredOffsets': preferred,
    ...named(
      'trap',
      options({ bar: 0, offset: 0n, length: 8n, ...methods }, (one) => make({ traps: [one] })),
    ),
    ...named(
      'mirror',
      options(mirror, (one) => make({ mirrors: [one] })),
    ),
    ...named(
      'config',
      options({ ...ids, portType: 'conventional' }, (config) => make({ config })),
    ),
  };
}

function assignedCalls(memory: GuestMemory, assigned: AssignedDevice, free: SimulatedDevice): Record<string, Calls> {
  const vector = assigned.interrupts.vector('error');
  const create = async (given: Anything): Promise<void> => void (await AssignedDevice.create(given));
  const { bdf, config, regions, interrupts } = free;
  const methods = { reset: async () => {}, hotReset: async () => [], close: async () => {} };
  const own: PhysicalFunction = { bdf, config, regions, interrupts, ...methods };
  return {
    'AssignedDevice.create': {
      ...options(
        {
          device: undefined,
          memory,
          bars: {},
          peerToPeerDomain: 'default',
          capabilities: [],
          config: {},
          traps: [],
          mirrors: [],
        },
        create,
      ),
      ...changes(memory, own),
      ...options({ 0: 0n }, (bars) => create({ device: { ...own, bdf: undefined }, memory, bars })),
      ...options({ address: 0n, mmap: true, peerToPeer: true }, async (bar) =>
        (await AssignedDevice.create({ device: own, memory, bars: { 0: bar } })).close(),
      ),
      ...options({ ...own }, async (device) => (await AssignedDevice.create({ device, memory })).close()),
    },
    'AssignedDevice#configRead': {
      offset: (value) => assigned.configRead(value, 4),
      size: (value) => assigned.configRead(0, value),
    },
    'AssignedDevice#configWrite': {
      offset: (value) => assigned.configWrite(value, 4, 0),
      size: (value) => assigned.configWrite(0, value, 0),
      value: (value) => assigned.configWrite(0, 4, value),
    },
    'AssignedDevice#ecamRead': {
      offset: (value) => assigned.ecamRead(value, 8),
      length: (value) => assigned.ecamRead(0, value),
    },
    'AssignedDevice#ecamWrite': {
      offset: (value) => assigned.ecamWrite(value, new Uint8Array(8)),
      bytes: (value) => assigned.ecamWrite(0, value),
    },
    'AssignedDevice#mmioRead': {
      gpa: (value) => assigned.mmioRead(value, 4),
      length: (value) => assigned.mmioRead(0n, value),
    },
    'AssignedDevice#mmioWrite': {
      gpa: (value) => assigned.mmioWrite(value, new Uint8Array(4)),
      bytes: (value) => assigned.mmioWrite(0n, value),
    },
    'AssignedDevice#watchBars': { changed: (value) => assigned.watchBars(value).remove() },
    'AssignedDevice#reset': options({ signal: undefined }, (given) => assigned.reset(given)),
    'AssignedInterrupts#count': { kind: (value) => assigned.interrupts.count(value) },
    'AssignedInterrupts#vector': {
      kind: (value) => assigned.interrupts.vector(value),
      index: (value) => assigned.interrupts.vector('error', value),
    },
    'AssignedInterrupts#onChange': {
      callback: (value) => {
        assigned.interrupts.onChange(value);
        assigned.interrupts.onChange(undefined);
      },
    },
    'InterruptVector#onInterrupt': {
      callback: (value) => {
        vector.onInterrupt(value);
        vector.onInterrupt(undefined);
      },
    },
  };
}
