// The simulated IOMMU with the rules of Linux iommufd (drivers/iommu/iommufd/, drivers/vfio/pci/vfio_pci_dmabuf.c).
import test, { type ExecutionContext } from 'ava';
import { ftruncateSync } from 'node:fs';
import { AddressRange, type DmaMapRequest, type ErrorCode, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { MemoryOfDevice } from '../support/device-file.ts';
import { throwsCode } from '../support/errors.ts';
import { requests } from '../support/leased-requests.ts';
import { at, PAGE, pages, taggedFile } from '../support/pages.ts';
import { temporaryFile } from '../support/temporary-file.ts';

const MSI = 0xfee00000n;

type Refused = { readonly code: ErrorCode; readonly errno: string; readonly advice: RegExp };

const OVERLAP = { code: 'ERR_IOVA_OVERLAP', errno: 'EEXIST', advice: /[Uu]nmap it first/ } as const;
const UNALIGNED = { code: 'ERR_UNALIGNED', errno: 'EINVAL', advice: /[Aa]lign/ } as const;
const UNREACHABLE = { code: 'ERR_IOVA_UNREACHABLE', errno: 'EINVAL', advice: /within one of/ } as const;
const OFF = { code: 'ERR_MEMORY_FAULT', errno: 'ENODEV', advice: /memory decode/ } as const;
const SHORT = { code: 'ERR_MEMORY_FAULT', errno: 'EINVAL', advice: /is shorter than that now/ } as const;
const LIMIT = { code: 'ERR_MAPPING_LIMIT', errno: 'ENOSPC', advice: /mappings/ } as const;

interface Case {
  readonly what: string;
  /** The kind of memory: of a device that decodes or not; a whole or a truncated file; of this process. */
  readonly memory: 'device' | 'device off' | 'file' | 'short file' | 'private';
  readonly before?: AddressRange;
  readonly map: AddressRange;
  readonly maxMappings?: number;
  readonly refused?: Refused;
}

const here = pages(8, 4);
const CASES: readonly Case[] = [
  ...(['device', 'file', 'private'] as const).flatMap((memory): Case[] => [
    { what: 'a free range', memory, before: here, map: pages(16, 2) },
    { what: 'a taken range', memory, before: here, map: pages(11, 2), refused: OVERLAP },
    { what: 'an unaligned range', memory, map: AddressRange.of(0x800n, PAGE), refused: UNALIGNED },
    { what: 'the window of interrupts', memory, map: AddressRange.of(MSI, PAGE), refused: UNREACHABLE },
    {
      what: 'one more than the limit that was set',
      memory,
      before: here,
      maxMappings: 1,
      map: pages(16, 1),
      refused: LIMIT,
    },
  ]),
  { what: 'a free range', memory: 'device off', map: pages(16, 2), refused: OFF },
  { what: 'a free range', memory: 'short file', map: pages(16, 2), refused: SHORT },
  { what: 'the part that is there', memory: 'short file', map: pages(16, 1) },
  // The first check decides the result: the device's file is checked before the addresses.
  { what: 'the device before overlap', memory: 'device off', before: here, map: here, refused: OFF },
  { what: 'the device before the limit', memory: 'device off', maxMappings: 0, map: here, refused: OFF },
  { what: 'the device before the IOVA range', memory: 'device off', map: AddressRange.of(MSI, PAGE), refused: OFF },
  {
    what: 'overlap before the end of the file',
    memory: 'short file',
    before: here,
    map: pages(9, 2),
    refused: OVERLAP,
  },
  {
    what: 'the IOVA range before the end of the file',
    memory: 'short file',
    map: AddressRange.of(MSI, at(2)),
    refused: UNREACHABLE,
  },
  {
    what: 'alignment before the end of the file',
    memory: 'short file',
    map: AddressRange.of(0x800n, at(2)),
    refused: UNALIGNED,
  },
];

/** A request for that kind of memory. Only private memory has host memory. */
async function requestFor(t: ExecutionContext, { memory, map }: Pick<Case, 'memory' | 'map'>): Promise<DmaMapRequest> {
  const kind = memory.startsWith('device') ? 'device' : 'ram';
  const common = { range: map, writable: true, kind, name: 'wanted' } as const;
  if (memory === 'private') {
    const { hostMemory } = await (await requests(t))(map);
    if (hostMemory === undefined) throw new Error('it was leased');
    return { ...common, backing: 'private', hostMemory };
  }
  if (kind === 'device') {
    const device = new MemoryOfDevice(t, 'device', 4);
    device.decode(memory === 'device');
    return { ...common, backing: { file: device.file, offset: PAGE } };
  }
  if (memory === 'file') return { ...common, backing: { file: taggedFile(t, 'file', 4, 1), offset: PAGE } };
  return { ...common, backing: { file: shortFile(t), offset: PAGE } };
}

/** Three pages long when it was opened, two now. */
function shortFile(t: ExecutionContext): MemoryFile {
  const fd = temporaryFile(t, Number(at(3)));
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  ftruncateSync(fd, Number(at(2)));
  return file;
}

for (const one of CASES) {
  const { what, memory, before, map, refused, ...options } = one;
  test(`map: ${what}, of ${memory === 'device' ? 'a device that decodes' : memory} → ${refused?.errno ?? 'mapped'}`, async (t) => {
    const iommu = new SimulatedIommu({ name: 'sim', rules: 'iommufd', ...options });
    if (before !== undefined) iommu.mapDma(await requestFor(t, { memory: 'private', map: before }));
    const held = iommu.mappings().map(({ range }) => String(range));
    const wanted = await requestFor(t, one);
    const mapped = (): string[] => iommu.mappings().map(({ range }) => String(range));
    if (refused === undefined) {
      iommu.mapDma(wanted);
      t.deepEqual(mapped(), [...held, String(map)]);
      t.false(iommu.isRevoked(map));
      iommu.read(map.end - 1n, 1);
      return;
    }
    const error = throwsCode(t, () => iommu.mapDma(wanted), refused.code);
    t.is(error.errno, refused.errno);
    t.is(error.target, 'sim');
    t.is(error.range, map);
    t.true(error.message.includes('sim') && error.message.includes('"wanted"') && error.message.includes(String(map)));
    t.regex(error.message, refused.advice);
    t.deepEqual(mapped(), held);
  });
}

test('checks last whether a device decodes with type1v2, which pins last', async (t) => {
  const lend = await requests(t);
  const device = new MemoryOfDevice(t, 'device', 4);
  device.decode(false);
  const backing = { file: device.file, offset: 0n };
  const answers: [AddressRange, ErrorCode, string, number?][] = [
    [here, 'ERR_IOVA_OVERLAP', 'EEXIST'],
    [AddressRange.of(MSI, PAGE), 'ERR_IOVA_UNREACHABLE', 'EINVAL'],
    [pages(16, 1), 'ERR_MAPPING_LIMIT', 'ENOSPC', 1],
    [pages(16, 1), 'ERR_MEMORY_FAULT', 'EFAULT'],
  ];
  for (const [range, code, errno, maxMappings = 8] of answers) {
    const iommu = new SimulatedIommu({ maxMappings });
    iommu.mapDma(await lend(here));
    const wanted = { ...(await lend(range, { kind: 'device' })), backing };
    t.is(throwsCode(t, () => iommu.mapDma(wanted), code).errno, errno);
  }
});

test('requires host memory for private memory only, and ignores it for files', async (t) => {
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  const { hostMemory, ...bare } = await requestFor(t, { memory: 'private', map: pages(0, 1) });
  const error = throwsCode(t, () => iommu.mapDma(bare), 'ERR_HOST_MEMORY_REQUIRED');
  t.regex(error.message, /needsVa/);
  t.is(iommu.needsVa, 'private');
  const file = await requestFor(t, { memory: 'file', map: pages(4, 1) });
  if (hostMemory === undefined) throw new Error('it was leased');
  iommu.mapDma({ ...file, hostMemory });
  t.is(iommu.read(at(4), 1)[0], 2, 'the byte of the file');
});

test('limits mappings only if a limit is set', async (t) => {
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  const { backing } = await requestFor(t, { memory: 'file', map: pages(0, 1) });
  for (let page = 0; page < 65_540; page++) {
    iommu.mapDma({ range: pages(page, 1), backing, writable: true, kind: 'ram', name: 'many' });
  }
  t.is(iommu.mappings().length, 65_540);
  iommu.unmapDma(pages(0, 65_540));
  t.deepEqual(iommu.mappings(), []);
});

const ALL = ['0x1000..0x2000', '0x4000..0x8000', '0x8000..0xa000'];
for (const [what, unmap, left] of [
  ['exactly one', pages(4, 4), ['0x1000..0x2000', '0x8000..0xa000']],
  ['all, with gaps', pages(0, 32), []],
  ['nothing, between two', pages(2, 2), ALL],
  ['the first page of one', pages(4, 1), undefined],
  ['the middle of one', pages(5, 2), undefined],
  ['one and half of the next', pages(4, 5), undefined],
  ['an unaligned range', AddressRange.of(0x800n, 0x1800n), undefined],
] as const) {
  test(`unmap: ${what} → ${left === undefined ? 'rejected before the kernel' : 'done'}`, async (t) => {
    const iommu = new SimulatedIommu({ name: 'sim', rules: 'iommufd' });
    const { backing } = await requestFor(t, { memory: 'file', map: pages(0, 1) });
    for (const range of [pages(1, 1), pages(4, 4), pages(8, 2)]) {
      const whole = { file: taggedFile(t, 'whole', 4, 1), offset: 0n };
      iommu.mapDma({ range, backing: range.length > PAGE ? whole : backing, writable: true, kind: 'ram', name: 'r' });
    }
    if (left !== undefined) {
      t.notThrows(() => iommu.unmapDma(unmap));
    } else {
      const error = throwsCode(t, () => iommu.unmapDma(unmap), 'ERR_UNMAP_FAILED');
      t.is(error.errno, undefined, 'iommufd would unmap a part of it');
      t.is(error.range, unmap);
    }
    t.deepEqual(
      iommu.mappings().map(({ range }) => String(range)),
      left ?? ALL,
    );
  });
}

test('keeps a mapping revoked after its device was off or reset, until it is unmapped', async (t) => {
  const device = new MemoryOfDevice(t, 'device', 4);
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  const map = (range: AddressRange, offset: bigint): void =>
    iommu.mapDma({ range, backing: { file: device.file, offset }, writable: true, kind: 'device', name: 'bar' });
  map(pages(0, 1), 0n);
  device.decode(false);
  t.true(iommu.isRevoked(pages(0, 1)));
  device.decode(true);
  t.true(iommu.isRevoked(pages(0, 1)));
  map(pages(4, 1), PAGE);
  t.false(iommu.isRevoked(pages(4, 1)));
  t.is(iommu.read(at(4), 1)[0], 0x41);
  for (const access of [() => iommu.read(0n, 1), () => iommu.write(0n, Uint8Array.of(1))]) {
    const error = throwsCode(t, access, 'ERR_DMA_FAULT');
    t.regex(error.message, /switched off or reset/);
  }
  t.is(iommu.mappings().length, 2, 'its addresses are still occupied');
  iommu.unmapDma(pages(0, 1));
  t.false(iommu.isRevoked(pages(0, 1)), 'an absent mapping is not revoked');
  map(pages(0, 1), 0n);
  t.is(iommu.read(0n, 1)[0], 0x40);
  t.is(device.file.read(0n, 1)[0], 0x40, 'DMA that faulted has written nothing');
});

test('faults on DMA across a revoked mapping before any access', async (t) => {
  const [device, other] = [new MemoryOfDevice(t, 'device', 1), new MemoryOfDevice(t, 'other', 1, 0x60)];
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  for (const [page, { file }] of [other, device].entries()) {
    iommu.mapDma({ range: pages(page, 1), backing: { file, offset: 0n }, writable: true, kind: 'device', name: 'bar' });
  }
  iommu.write(PAGE - 1n, Uint8Array.of(1, 2));
  device.revoke();
  throwsCode(t, () => iommu.write(PAGE - 1n, Uint8Array.of(3, 4)), 'ERR_DMA_FAULT');
  throwsCode(t, () => iommu.read(PAGE - 1n, 2), 'ERR_DMA_FAULT');
  t.deepEqual([other.file.read(PAGE - 1n, 1)[0], device.file.read(0n, 1)[0]], [1, 2]);
});

test('keeps a mapping with type1v2, drops writes while the device is off, and works again after it', async (t) => {
  const lend = await requests(t);
  const device = new MemoryOfDevice(t, 'device', 1);
  const iommu = new SimulatedIommu();
  iommu.mapDma({ ...(await lend(pages(0, 1), { kind: 'device' })), backing: { file: device.file, offset: 0n } });
  iommu.write(0n, Uint8Array.of(1));
  device.decode(false);
  t.false(iommu.isRevoked(pages(0, 1)));
  iommu.write(0n, Uint8Array.of(2));
  t.deepEqual(iommu.read(0n, 1), Uint8Array.of(0));
  device.decode(true);
  t.deepEqual(iommu.read(0n, 1), Uint8Array.of(1));
});
