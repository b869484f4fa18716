/**
 * Calls of guest memory, its regions, windows and targets.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, type DmaMapRequest, type DmaTarget, GuestMemory, MemoryFile } from '../../../ts/index.ts';
import { PAGE } from '../../support/pages.ts';
import { type Anything, type Calls, RANGE, options } from '../values.ts';

const RAM = { start: 0n, length: PAGE };
const RAM_OPTIONS = {
  name: undefined,
  length: PAGE,
  file: undefined,
  private: true,
  hugePages: undefined,
  prefault: false,
  numaNode: undefined,
};
const BLOCKS = { start: 128n * PAGE, length: 2n * PAGE, blockSize: PAGE, plugged: [], mappingSize: 2n * PAGE };
const TARGET = { name: 'x', mapDma: () => undefined, unmapDma: () => undefined };

export async function guestCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ ram: [RAM], addressWidth: 32 });
  t.teardown(() => memory.close());
  const blocks = await memory.addPluggableRam({ start: 256n * PAGE, length: PAGE, blockSize: PAGE });
  const region = await memory.regions.addRegion({ name: 'r', range: AddressRange.of(16n * PAGE, PAGE) });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const create = async (given: Anything): Promise<void> => (await GuestMemory.create(given)).close();
  const addRegion = async (given: Anything): Promise<void> => (await memory.regions.addRegion(given)).remove();
  const addTarget = async (target: object, given: Anything): Promise<void> => {
    const handle = await memory.dmaMappers.addDmaMapper(target as DmaTarget, given);
    await handle.remove();
  };
  const mapping = { range: RANGE, backing: 'private', writable: true };
  const file = MemoryFile.create(PAGE);
  t.teardown(() => file.close());
  const inFile = (backing: Anything): Promise<void> => region.addMapping({ range: RANGE, backing });
  const host = await hostMemoryOf(t);
  return {
    'GuestMemory.create': {
      ...options({ ram: [RAM], addressWidth: 32 }, create),
      ...prefixed(
        'ram',
        options({ ...RAM_OPTIONS, ...RAM }, (one) => create({ ram: [one], addressWidth: 32 })),
      ),
    },
    'GuestMemory#addRam': {
      ...options({ ...RAM_OPTIONS, start: 64n * PAGE }, async (given) => (await memory.addRam(given)).remove()),
      ...prefixed(
        'abort',
        options({ signal: undefined }, async (given) => {
          await (await memory.addRam({ start: 64n * PAGE, length: PAGE }, given)).remove();
        }),
      ),
    },
    'GuestMemory#addPluggableRam': {
      ...options({ ...RAM_OPTIONS, ...BLOCKS }, async (given) => (await memory.addPluggableRam(given)).remove()),
      ...prefixed(
        'abort',
        options({ signal: undefined }, async (given) => {
          await (await memory.addPluggableRam(BLOCKS, given)).remove();
        }),
      ),
    },
    'PluggableRam#plug': { ranges: (value) => blocks.plug(value), range: (value) => blocks.plug([value]) },
    'PluggableRam#unplug': { ranges: (value) => blocks.unplug(value), range: (value) => blocks.unplug([value]) },
    'PluggableRam#plugged': { within: (value) => blocks.plugged(value) },
    'GuestMemory#newDeviceMemory': options(
      { name: 'w', length: PAGE, mmap: true, peerToPeer: true, peerToPeerDomain: 'default' },
      (given) => memory.newDeviceMemory(given).remove(),
    ),
    'GuestMemory#read': { gpa: (value) => memory.read(value, 1), length: (value) => memory.read(0n, value) },
    'GuestMemory#write': {
      gpa: (value) => memory.write(value, new Uint8Array(1)),
      bytes: (value) => memory.write(0n, value),
    },
    'GuestMemory#readInto': {
      gpa: (value) => memory.readInto(value, new Uint8Array(1)),
      bytes: (value) => memory.readInto(0n, value),
    },
    'GuestMemory#read8': { gpa: (value) => memory.read8(value) },
    'GuestMemory#read16': { gpa: (value) => memory.read16(value) },
    'GuestMemory#read32': { gpa: (value) => memory.read32(value) },
    'GuestMemory#read64': { gpa: (value) => memory.read64(value) },
    'GuestMemory#write8': { gpa: (value) => memory.write8(value, 1), value: (value) => memory.write8(0n, value) },
    'GuestMemory#write16': { gpa: (value) => memory.write16(value, 1), value: (value) => memory.write16(0n, value) },
    'GuestMemory#write32': { gpa: (value) => memory.write32(value, 1), value: (value) => memory.write32(0n, value) },
    'GuestMemory#write64': { gpa: (value) => memory.write64(value, 1n), value: (value) => memory.write64(0n, value) },
    'GuestMemory#explain': {
      address: (value) => memory.explain(value),
      target: (value) => memory.explain(0n, value),
    },
    'RegionManager#addRegion': options({ name: 'x', range: RANGE, priority: 0, kind: 'ram' }, addRegion),
    'MemoryRegion#addMapping': {
      ...options(mapping, (given) => region.addMapping(given)),
      ...prefixed('backing', options({ file, offset: 0n }, inFile)),
    },
    'MemoryRegion#removeMappings': { range: (value) => region.removeMappings(value) },
    'Region#mapToGuest': options({ writable: true }, (given) => region.mapToGuest(given)),
    'GuestMemory#change': { edit: (value) => memory.change(value) },
    'MemoryChange#addMapping': {
      region: (value) => memory.change((change) => change.addMapping(value, { backing: 'private' })),
      ...options(mapping, (given) => memory.change((change) => change.addMapping(region, given))),
    },
    'MemoryChange#removeMappings': {
      region: (value) => memory.change((change) => change.removeMappings(value, RANGE)),
      range: (value) => memory.change((change) => change.removeMappings(region, value)),
    },
    'MemoryChange#mapToGuest': {
      region: (value) => memory.change((change) => change.mapToGuest(value, 32n * PAGE)),
      gpa: (value) => memory.change((change) => change.mapToGuest(bar, value)),
      ...options({ writable: true }, (given) => memory.change((change) => change.mapToGuest(region, given))),
    },
    'MemoryChange#unmapFromGuest': {
      region: (value) => memory.change((change) => change.unmapFromGuest(value)),
    },
    'MemoryChange#remove': { region: (value) => memory.change((change) => change.remove(value)) },
    'DeviceMemory#mapToGuest': {
      gpa: (value) => bar.mapToGuest(value),
      ...options({ writable: true }, (given) => bar.mapToGuest(32n * PAGE, given)),
    },
    'DmaMapperClient#addDmaMapper': {
      target: (value) => addTarget(value, {}),
      ...options({ peerToPeer: 'off', peerToPeerDomains: ['default'] }, (given) => addTarget({ ...TARGET }, given)),
    },
    'DmaMapperClient#targetClosed': { target: (value) => memory.dmaMappers.targetClosed(value) },
    'MemorySharing#snapshot': options({ peerToPeerDomains: ['default'] }, (given) => memory.sharing.snapshot(given)),
    'MemorySharing#changes': options({ peerToPeerDomains: ['default'], signal: undefined }, async (given) => {
      for await (const _ of memory.sharing.changes(given)) break;
    }),
    'HostMemory#read': { offset: (value) => host.read(value, 1), length: (value) => host.read(0n, value) },
    'HostMemory#write': {
      offset: (value) => host.write(value, new Uint8Array(1)),
      bytes: (value) => host.write(0n, value),
    },
  };
}

/** The host memory that a target receives with a page. */
async function hostMemoryOf(t: ExecutionContext): Promise<NonNullable<DmaMapRequest['hostMemory']>> {
  const memory = await GuestMemory.create({ ram: [RAM], addressWidth: 32 });
  t.teardown(() => memory.close());
  const lent: DmaMapRequest[] = [];
  await memory.dmaMappers.addDmaMapper({ ...TARGET, needsVa: true, mapDma: (request) => void lent.push(request) });
  const host = lent[0]?.hostMemory;
  if (host === undefined) throw new Error('the target requires host memory');
  return host;
}

function prefixed(prefix: string, calls: Calls): Calls {
  return Object.fromEntries(Object.entries(calls).map(([name, call]) => [`${prefix} ${name}`, call]));
}
