// Addresses, offsets, sizes and 64-bit values are bigints; counts, lengths of byte arrays and widths are numbers.
import test, { type ExecutionContext } from 'ava';
import { AssignedDevice, GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { PAGE } from '../support/pages.ts';
import { SUBJECTS } from './subjects.ts';

/** Parameters by call, as the tables of `SUBJECTS` name them. */
const BIGINTS: Readonly<Record<string, readonly string[]>> = {
  'AddressRange.of': ['start', 'length'],
  'AddressRange#contains': ['other'],
  'MemoryFile.create': ['length'],
  'MemoryFile#read': ['offset'],
  'MemoryFile#write': ['offset'],
  'GuestMemory.create': ['ram start', 'ram length'],
  'GuestMemory#addRam': ['start', 'length'],
  'GuestMemory#addPluggableRam': ['start', 'length', 'blockSize', 'mappingSize'],
  'GuestMemory#newDeviceMemory': ['length'],
  'GuestMemory#read': ['gpa'],
  'GuestMemory#write': ['gpa'],
  'GuestMemory#readInto': ['gpa'],
  'GuestMemory#read8': ['gpa'],
  'GuestMemory#read16': ['gpa'],
  'GuestMemory#read32': ['gpa'],
  'GuestMemory#read64': ['gpa'],
  'GuestMemory#write8': ['gpa'],
  'GuestMemory#write16': ['gpa'],
  'GuestMemory#write32': ['gpa'],
  'GuestMemory#write64': ['gpa', 'value'],
  'GuestMemory#explain': ['address'],
  'MemoryRegion#addMapping': ['backing offset'],
  'MemoryChange#mapToGuest': ['gpa'],
  'DeviceMemory#mapToGuest': ['gpa'],
  'HostMemory#read': ['offset'],
  'HostMemory#write': ['offset'],
  'new SimulatedIommu': ['pageSize'],
  'SimulatedIommu#mapDma': ['offset'],
  'SimulatedIommu#read': ['iova'],
  'SimulatedIommu#write': ['iova'],
  'new SimulatedDevice': ['rom length', 'msix tableOffset', 'msix pendingOffset', 'length', 'hostAddress'],
  'SimulatedDevice.edu': ['hostAddress'],
  'SimulatedDevice#dmaRead': ['iova'],
  'SimulatedDevice#dmaWrite': ['iova'],
  'SimulatedDevice#queueDmaWrite': ['iova'],
  'AssignedDevice.create': ['address', 'trap offset', 'trap length', 'mirror offset', 'mirror length'],
  'AssignedDevice#mmioRead': ['gpa'],
  'AssignedDevice#mmioWrite': ['gpa'],
  'PciHostBridge#mmioRead': ['gpa'],
  'PciHostBridge#mmioWrite': ['gpa'],
  'DmaBuffer.allocate': ['length', 'alignment'],
  registers: ['base'],
  u32: ['offset'],
  u64: ['offset'],
  'EventFd#signal': ['count'],
  diagnose: ['ram'],
  explain: ['address'],
  'DirtyPages#contains': ['gpa'],
  'VfioRegion#backing': ['offset'],
  'VfioRegion#read': ['offset'],
  'VfioRegion#write': ['offset'],
  'VfioRegion#writeAsync': ['offset'],
  'VfioRegion#read32': ['offset'],
  'VfioRegion#write32': ['offset'],
  'VfioRegion#read64': ['offset'],
  'VfioRegion#write64': ['offset', 'value'],
  'MigrationTarget#write': ['gpa'],
  'VirtualMachine#sendMessage': ['address'],
  'VirtualMachine#addDoorbell': ['gpa', 'value'],
  'VirtualCpu#setRegisters': ['rip', 'cs.base'],
  realModeAt: ['address'],
  protectedModeAt: ['address'],
  longModeAt: ['address', 'pageTables'],
  identityPageTables: ['address'],
  'VirtualCpu#translate': ['linear'],
};

const NUMBERS: Readonly<Record<string, readonly string[]>> = {
  'MemoryFile.fromFd': ['fd'],
  'EventFd.fromFd': ['fd'],
  'UnixSocket.fromFd': ['fd'],
  'UnixSocket#receive': ['length'],
  'VhostUserTarget#setQueue': ['index', 'size', 'base'],
  'VhostUserTarget#stopQueue': ['index'],
  'VhostUserTarget#readConfig': ['offset', 'length'],
  'VhostUserTarget#writeConfig': ['offset'],
  'MemoryFile#read': ['length'],
  'GuestMemory.create': ['addressWidth', 'ram numaNode'],
  'GuestMemory#addRam': ['numaNode'],
  'GuestMemory#addPluggableRam': ['numaNode'],
  'GuestMemory#read': ['length'],
  'GuestMemory#write8': ['value'],
  'GuestMemory#write16': ['value'],
  'GuestMemory#write32': ['value'],
  'RegionManager#addRegion': ['priority'],
  'HostMemory#read': ['length'],
  'new SimulatedIommu': ['maxMappings'],
  'SimulatedIommu#read': ['length'],
  'new SimulatedDevice': [
    'index',
    'ids vendor',
    'ids device',
    'ids revision',
    'ids class',
    'ids subsystemVendor',
    'ids subsystem',
    'msi vectors',
    'msix vectors',
    'msix bar',
  ],
  'SimulatedDevice#dmaRead': ['length'],
  'SimulatedDevice#raise': ['vector'],
  'AssignedDevice.create': [
    'capability id',
    'capability offset',
    'config vendorId',
    'config deviceId',
    'config subsystemVendorId',
    'config subsystemId',
    'config revisionId',
    'config classCode',
    'trap bar',
    'mirror bar',
  ],
  nvidiaP2pClique: ['clique'],
  'AssignedDevice#configRead': ['offset', 'size'],
  'AssignedDevice#configWrite': ['offset', 'size', 'value'],
  'AssignedDevice#ecamRead': ['offset', 'length'],
  'AssignedDevice#ecamWrite': ['offset'],
  'AssignedDevice#mmioRead': ['length'],
  'PciHostBridge#portRead': ['port', 'size'],
  'PciHostBridge#portWrite': ['port', 'size', 'value'],
  'PciHostBridge#mmioRead': ['length'],
  'AssignedInterrupts#vector': ['index'],
  'DmaBuffer.allocate': ['addressWidth'],
  'VfioInterrupts#reconnect': ['vector'],
  'VfioRegion#read': ['length'],
  'VfioRegion#write32': ['value'],
  'VirtualMachine.create': ['cpus'],
  lineOfPin: ['device', 'pin'],
  'VirtualMachine#line': ['number'],
  'VirtualMachine#sendMessage': ['data'],
  'VirtualMachine#addDoorbell': ['port', 'width'],
  'VirtualCpu#setRegisters': ['cs.limit', 'cs.selector', 'cs.rights', 'gdt.limit'],
  'PortSpace#add': ['first', 'count'],
};

/** Parameters with such a name that are not numeric, or are fields of recorded data. */
const OTHERS: Readonly<Record<string, readonly string[]>> = {
  'new SimulatedDevice': ['ids', 'bars'],
  explain: ['addressWidth', 'priority', 'length', 'start'],
  registers: ['offset'],
  functionAt: ['address'],
  'PciHostBridge#add': ['address'],
  'PciHostBridge#remove': ['address'],
};

const NUMERIC =
  /^(start|length|offset|tableOffset|pendingOffset|gpa|iova|address|hostAddress|alignment|base|pageSize|size|value|count|index|vectors?|bar|fd|addressWidth|addressWidth|numaNode|priority|maxMappings)$/;

const lastWord = (name: string): string => name.split(' ').at(-1) ?? '';

async function messageOf(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    if (error instanceof PeerDmaError && error.code === 'ERR_INVALID_ARGUMENT') return error.message;
    return `another error: ${String(error)}`;
  }
  return 'no error';
}

/** Calls with a value of the other type, and compares the messages. */
async function tryTable(t: ExecutionContext, subject: string, other: unknown, text: string): Promise<void> {
  const table = typeof other === 'number' ? BIGINTS : NUMBERS;
  const found: Record<string, string> = {};
  const expected: Record<string, string> = {};
  for (const [name, calls] of Object.entries((await SUBJECTS[subject]?.(t)) ?? {})) {
    for (const parameter of table[name] ?? []) {
      const key = `${name}, ${parameter}`;
      expected[key] = `"${lastWord(parameter)}" ${text}`;
      found[key] = await messageOf(() => calls[parameter]?.(other));
    }
  }
  t.deepEqual(found, expected);
}

for (const subject of Object.keys(SUBJECTS)) {
  test(`${subject}: rejects a number for a bigint and names both types`, (t) =>
    tryTable(t, subject, 4096, 'is a bigint (4096n), not the number 4096'));

  test(`${subject}: rejects a bigint for a number and names both types`, (t) =>
    tryTable(t, subject, 16n, 'is a number (16), not the bigint 16n'));
}

test('every numeric parameter of the package has a type in these tables', async (t) => {
  const untyped: string[] = [];
  const known = new Set<string>();
  for (const calls of Object.values(SUBJECTS)) {
    for (const [name, parameters] of Object.entries(await calls(t))) {
      for (const parameter of Object.keys(parameters)) {
        known.add(`${name}, ${parameter}`);
        const tables = [BIGINTS, NUMBERS, OTHERS].filter((table) => table[name]?.includes(parameter));
        // A function of a recorded host has properties of other meanings.
        if (!NUMERIC.test(lastWord(parameter)) || parameter.startsWith('function ') || tables.length === 1) continue;
        untyped.push(`${name}, ${parameter}: ${tables.length} types`);
      }
    }
  }
  t.deepEqual(untyped, []);
  const listed = [BIGINTS, NUMBERS, OTHERS].flatMap((table) =>
    Object.entries(table).flatMap(([name, parameters]) => parameters.map((parameter) => `${name}, ${parameter}`)),
  );
  t.deepEqual(
    listed.filter((one) => !known.has(one)),
    [],
  );
});

test('rejects a number for the guest address of a pinned BAR and names both types', async (t) => {
  await using memory = await GuestMemory.create();
  await using device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: PAGE }] });
  const bars = { 0: 4096 as never };
  const error = await rejectsCode(t, AssignedDevice.create({ device, memory, bars }), 'ERR_INVALID_ARGUMENT');
  t.is(error.message, '"bars[0] of 0000:00:04.0" is a bigint (4096n), not the number 4096');
});

test('names only the type when the value has no equal of the other type', async (t) => {
  for (const [value, text] of [
    [1.5, 'is a bigint, not the number 1.5'],
    ['4096', 'is a bigint, not 4096'],
    [undefined, 'is a bigint, not undefined'],
  ] as const) {
    await using memory = await GuestMemory.create();
    t.is(await messageOf(() => memory.read8(value as never)), `"gpa" ${text}`);
  }
  await using memory = await GuestMemory.create();
  t.is(
    await messageOf(() => memory.read(0n, (1n << 60n) as never)),
    `"length" is a number, not the bigint ${1n << 60n}n`,
  );
});
