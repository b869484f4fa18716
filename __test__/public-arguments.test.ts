// Whatever a call of the package is handed, what it throws is a PeerDmaError.
import test from 'ava';
import {
  AddressRange,
  AssignedDevice,
  DmaBuffer,
  EventFd,
  type DmaTarget,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  SimulatedDevice,
  SimulatedIommu,
  VfioContainerManager,
  diagnose,
  pciAddress,
  readHost,
  registers,
  resetDevices,
  u32,
  u64,
} from '../ts/index.ts';
import { PAGE } from './support/pages.ts';

// oxlint-disable-next-line typescript/no-explicit-any -- arguments of every wrong type are the subject
type Anything = any;

const RANGE = AddressRange.of(0n, PAGE);
const trap = (): never => {
  throw new Error('not to be looked at');
};

const NUMBERS: readonly Anything[] = [0, -1, 1.5, NaN, Infinity, 2 ** 53, 1n, -1n, 1n << 63n, 1n << 64n];
const OTHERS: readonly Anything[] = ['', 'x', true, Symbol('s'), {}, [], [null], () => undefined, new Uint8Array(3)];
const VALUES: readonly Anything[] = [undefined, null, ...NUMBERS, ...OTHERS, RANGE];
/** Those that can't even be written into a message. */
const WITHOUT_TEXT: readonly Anything[] = [Object.create(null), Symbol('s'), new Proxy({}, { get: trap, has: trap })];

/** Calls with each value in each place. */
async function tryAll(
  t: { true: (value: boolean, message?: string) => void },
  values: readonly Anything[],
  calls: Readonly<Record<string, (value: Anything) => unknown>>,
): Promise<void> {
  for (const [name, call] of Object.entries(calls)) {
    for (const [index, value] of values.entries()) {
      let thrown: unknown;
      try {
        await call(value);
      } catch (error) {
        thrown = error;
      }
      t.true(thrown === undefined || thrown instanceof PeerDmaError, `${name}, value ${index}: ${String(thrown)}`);
    }
  }
}

/** One call for each of these properties of an options object. */
function each(
  properties: readonly string[],
  call: (options: Record<string, unknown>) => unknown,
): Record<string, (value: Anything) => unknown> {
  return Object.fromEntries(properties.map((name) => [name, (value: unknown) => call({ [name]: value })]));
}

test('address ranges and files throw nothing but PeerDmaError', async (t) => {
  using file = MemoryFile.create(PAGE);
  const calls = {
    start: (value: Anything) => AddressRange.of(value, 1n),
    length: (value: Anything) => AddressRange.of(0n, value),
    'file length': (value: Anything) => MemoryFile.create(value).close(),
    ...each(['name', 'hugePages'], (options) => MemoryFile.create(PAGE, options).close()),
    'read at': (value: Anything) => file.read(value, 1),
    'read bytes': (value: Anything) => file.read(0n, value),
  };
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], calls);
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT], {
    contains: (value) => RANGE.contains(value),
    overlaps: (value) => RANGE.overlaps(value),
    equals: (value) => RANGE.equals(value),
  });
  await tryAll(t, VALUES, {
    'file options': (value) => MemoryFile.create(PAGE, value).close(),
    fromFd: (value) => MemoryFile.fromFd(value === 0 ? -1 : value).close(),
    'write at': (value) => file.write(value, new Uint8Array(1)),
    'written bytes': (value) => file.write(0n, value),
  });
});

test('guest memory, regions and windows throw nothing but PeerDmaError', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  const region = await memory.regions.addRegion({ name: 'r', range: AddressRange.of(16n * PAGE, PAGE) });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const create = async (options: Anything): Promise<void> => (await GuestMemory.create(options)).close();
  const stretch = { start: 0n, length: PAGE };
  const mapping = { range: RANGE, backing: 'private' as const };
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], {
    create,
    ...each(['ram', 'addressWidth'], create),
    'one of ram': (value) => create({ ram: [value] }),
    ...each(['start', 'length', 'file', 'private', 'hugePages', 'prefault', 'numaNode'], (options) =>
      create({ ram: [{ ...stretch, ...options }], addressWidth: 32 }),
    ),
    newDeviceMemory: (value) => memory.newDeviceMemory(value),
    'name of a window': (name) => memory.newDeviceMemory({ name, length: PAGE }).close(),
    'length of a window': (length) => memory.newDeviceMemory({ name: 'w', length }).close(),
    'read at': (value) => memory.read(value, 1),
    'read bytes': (value) => memory.read(0n, value),
    'write at': (value) => memory.write(value, new Uint8Array(1)),
    'written bytes': (value) => memory.write(0n, value),
    addRegion: (value) => memory.regions.addRegion(value),
    ...each(['name', 'range', 'priority', 'kind'], async (options) =>
      (await memory.regions.addRegion({ name: 'x', range: RANGE, ...options })).remove(),
    ),
    addMapping: (value) => region.addMapping(value),
    ...each(['range', 'backing', 'writable'], (options) => region.addMapping({ ...mapping, ...options })),
    'file of a backing': (file) => region.addMapping({ ...mapping, backing: { file, offset: 0n } }),
    removeMappings: (value) => region.removeMappings(value),
    'region.map': (value) => region.map(value),
    'bar.map': (value) => bar.map(value),
    ...each(['offset', 'length', 'backing'], (options) =>
      bar.map({ offset: 0n, length: PAGE, ...mapping, ...options }),
    ),
    'bar.unmap': (value) => bar.unmap(value),
    mapToGuest: (value) => bar.mapToGuest(value),
    'mapToGuest options': (value) => bar.mapToGuest(32n * PAGE, value),
  });
});

test('targets throw nothing but PeerDmaError into guest memory, whatever they offer and answer', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.map({ offset: 0n, length: PAGE, backing: 'private' });
  await bar.mapToGuest(16n * PAGE);
  const plain = { name: 'x', mapDma: () => undefined, unmapDma: () => undefined };
  const follow = async (target: object, options?: Anything): Promise<void> => {
    const handle = await memory.dmaMappers.addDmaMapper(target as DmaTarget, options);
    try {
      handle.status();
      memory.inspect();
      memory.explain(16n * PAGE);
      await handle.refresh();
      await (await DmaBuffer.allocate(memory, PAGE)).close();
      await bar.mapToGuest(32n * PAGE);
      await bar.mapToGuest(16n * PAGE);
    } finally {
      await memory.dmaMappers.targetClosed(target as DmaTarget);
    }
  };
  const traits = ['name', 'needsVa', 'needsFile', 'mapDma', 'unmapDma', 'mapDmaBatch', 'isRevoked', 'iovaRanges'];
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], {
    'a target': (value) => memory.dmaMappers.addDmaMapper(value),
    'a closed target': (value) => memory.dmaMappers.targetClosed(value),
    options: (value) => follow({ ...plain }, value),
    policy: (peerToPeer) => follow({ ...plain }, { peerToPeer }),
    ...each(traits, (options) => follow({ ...plain, ...options })),
    ...Object.fromEntries(
      traits.slice(3).map((name) => [`${name}()`, (value: unknown) => follow({ ...plain, [name]: () => value })]),
    ),
  });
  for (const name of traits) {
    const target = Object.defineProperty({ ...plain }, name, { get: trap });
    await t.throwsAsync(follow(target), {
      instanceOf: PeerDmaError,
      code: 'ERR_INVALID_ARGUMENT',
      message: /trap|looked/,
    });
  }
  for (const name of traits.slice(3))
    await tryAll(t, [trap], { [name]: (value) => follow({ ...plain, [name]: value }) });
});

test('simulated IOMMUs, devices, buffers and registers throw nothing but PeerDmaError', async (t) => {
  await using memory = await GuestMemory.create({ addressWidth: 32 });
  using file = MemoryFile.create(PAGE);
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  const request = { range: RANGE, backing: { file, offset: 0n }, writable: true, kind: 'ram', name: 'x' } as const;
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: 2n * PAGE }] });
  await using assigned = await AssignedDevice.create({ device, memory });
  const bar = device.regions[0];
  if (bar === undefined) throw new Error('the device has a BAR');
  using event = EventFd.create();
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], {
    'IOMMU options': (value) => new SimulatedIommu(value),
    ...each(['name', 'rules', 'pageSize', 'iovaRanges', 'maxMappings'], (options) => new SimulatedIommu(options)),
    mapDma: (value) => iommu.mapDma(value),
    ...each(['range', 'hostMemory', 'backing'], (options) => {
      iommu.mapDma({ ...request, ...options });
      iommu.unmapDma(RANGE);
    }),
    mapDmaBatch: (value) => iommu.mapDmaBatch(value),
    unmapDma: (value) => iommu.unmapDma(value),
    isRevoked: (value) => iommu.isRevoked(value),
    'DMA read at': (value) => iommu.read(value, 1),
    'DMA read bytes': (value) => iommu.read(0n, value),
    'DMA write at': (value) => iommu.write(value, new Uint8Array(1)),
    'DMA written bytes': (value) => iommu.write(0n, value),
    u32,
    u64,
    layout: (value) => registers(bar, value),
    base: (value) => registers(bar, { a: u32(0) }, value),
    pciAddress,
  });
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], {
    'buffer of': (value) => DmaBuffer.allocate(value, PAGE),
    'buffer length': async (value) => (await DmaBuffer.allocate(memory, value)).close(),
    'buffer options': async (value) => (await DmaBuffer.allocate(memory, PAGE, value)).close(),
    ...each(['name', 'alignment', 'addressBits'], async (options) =>
      (await DmaBuffer.allocate(memory, PAGE, options)).close(),
    ),
    bdf: (value) => new SimulatedDevice({ bdf: value, bars: [] }).close(),
    'index of a BAR': (index) => new SimulatedDevice({ bdf: '0000:00:05.0', bars: [{ index, length: PAGE }] }).close(),
    'kind of a BAR': (kind) =>
      new SimulatedDevice({ bdf: '0000:00:05.0', bars: [{ index: 0, length: PAGE, kind }] }).close(),
    hotReset: (value) => device.hotReset(value),
    backing: (value) => bar.backing(value),
    'kind of interrupt': (value) => device.interrupts.count(value),
    'reconnected vector': (value) => device.interrupts.reconnect('msix', value, undefined),
    'kind of guest interrupt': (value) => assigned.interrupts.vector(value),
    'vector of a guest interrupt': (value) => assigned.interrupts.vector('msix', value),
    'called back on an event': (value) => event.listen(value),
    'explained target': (value) => memory.explain(0n, value),
    'device and memory': (value) => AssignedDevice.create(value),
    resetDevices,
    'one of the devices': (value) => resetDevices([value]),
    configRead: (value) => assigned.configRead(value, 4),
    'bytes of configRead': (value) => assigned.configRead(0, value),
    'value of configWrite': (value) => assigned.configWrite(0, 4, value),
    'manager of': (value) => new VfioContainerManager(value),
    'manager options': (value) => new VfioContainerManager(memory, value),
    open: (value) => new VfioContainerManager(memory).open(value),
  });
});

test('the host and the doctor throw nothing but PeerDmaError', async (t) => {
  await tryAll(t, [...VALUES, ...WITHOUT_TEXT.slice(0, 2)], {
    readHost,
    ...each(['devices', 'ram', 'sysfs'], diagnose),
    'a device': (value) => diagnose({ devices: [value] }),
  });
});
