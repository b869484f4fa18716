// The simulated IOMMU with the rules of Linux VFIO type1v2 (drivers/vfio/vfio_iommu_type1.c).
import test from 'ava';
import { AddressRange, type ErrorCode } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { throwsCode } from '../support/errors.ts';
import { requests } from '../support/leased-requests.ts';
import { at, PAGE, pages } from '../support/pages.ts';

const MSI = 0xfee00000n;
const IOVA_END = 1n << 48n;

interface Case {
  readonly what: string;
  /** The existing mappings. */
  readonly before?: readonly AddressRange[];
  readonly map: AddressRange;
  readonly maxMappings?: number;
  readonly pageSize?: bigint;
  readonly refused?: { readonly code: ErrorCode; readonly errno: string; readonly advice: RegExp };
}

const OVERLAP = { code: 'ERR_IOVA_OVERLAP', errno: 'EEXIST', advice: /[Uu]nmap it first/ } as const;
const UNALIGNED = { code: 'ERR_UNALIGNED', errno: 'EINVAL', advice: /[Aa]lign/ } as const;
const UNREACHABLE = {
  code: 'ERR_IOVA_UNREACHABLE',
  errno: 'EINVAL',
  advice: /0x0\.\.0xfee00000, 0xfef00000\.\./,
} as const;
const LIMIT = { code: 'ERR_MAPPING_LIMIT', errno: 'ENOSPC', advice: /dma_entry_limit/ } as const;
const here = pages(8, 4);

const MAP: readonly Case[] = [
  { what: 'a free range', before: [here], map: pages(16, 2) },
  { what: 'right below another', before: [here], map: pages(6, 2) },
  { what: 'right above another', before: [here], map: pages(12, 2) },
  { what: 'the identical range', before: [here], map: here, refused: OVERLAP },
  { what: 'a part of another', before: [here], map: pages(9, 1), refused: OVERLAP },
  { what: 'around another', before: [here], map: pages(7, 6), refused: OVERLAP },
  { what: 'the first page of another', before: [here], map: pages(7, 2), refused: OVERLAP },
  { what: 'the last page of another', before: [here], map: pages(11, 2), refused: OVERLAP },
  { what: 'an unaligned start', map: AddressRange.of(0x800n, PAGE), refused: UNALIGNED },
  { what: 'an unaligned length', pageSize: 0x2000n, map: pages(0, 3), refused: UNALIGNED },
  { what: 'the window of interrupts', map: AddressRange.of(MSI, PAGE), refused: UNREACHABLE },
  { what: 'the end of the window', map: AddressRange.of(0xfeeff000n, PAGE), refused: UNREACHABLE },
  { what: 'into the window', map: AddressRange.of(MSI - PAGE, at(2)), refused: UNREACHABLE },
  { what: 'out of the window', map: AddressRange.of(0xfeeff000n, at(2)), refused: UNREACHABLE },
  { what: 'up to the window', map: AddressRange.of(MSI - PAGE, PAGE) },
  { what: 'from the window on', map: AddressRange.of(0xfef00000n, PAGE) },
  { what: 'up to 48 bits', map: AddressRange.of(IOVA_END - PAGE, PAGE) },
  { what: 'beyond 48 bits', map: AddressRange.of(IOVA_END, PAGE), refused: UNREACHABLE },
  { what: 'across 48 bits', map: AddressRange.of(IOVA_END - PAGE, at(2)), refused: UNREACHABLE },
  { what: 'the last page of 64 bits', map: AddressRange.of((1n << 64n) - PAGE, PAGE), refused: UNREACHABLE },
  { what: 'the last that the limit allows', before: [here], maxMappings: 2, map: pages(16, 1) },
  { what: 'one more than the limit', before: [here], maxMappings: 1, map: pages(16, 1), refused: LIMIT },
  // The first check decides the result.
  { what: 'alignment before overlap', before: [here], map: AddressRange.of(0x8800n, PAGE), refused: UNALIGNED },
  { what: 'alignment before the limit', maxMappings: 0, map: AddressRange.of(0x800n, PAGE), refused: UNALIGNED },
  { what: 'alignment before the IOVA range', map: AddressRange.of(MSI + 0x800n, PAGE), refused: UNALIGNED },
  { what: 'overlap before the limit', before: [here], maxMappings: 1, map: here, refused: OVERLAP },
  { what: 'the limit before the IOVA range', maxMappings: 0, map: AddressRange.of(MSI, PAGE), refused: LIMIT },
];

for (const { what, before = [], map, refused, ...options } of MAP) {
  test(`map: ${what} → ${refused?.errno ?? 'mapped'}`, async (t) => {
    const request = await requests(t);
    const iommu = new SimulatedIommu({ name: 'sim', ...options });
    for (const range of before) iommu.mapDma(await request(range));
    const wanted = await request(map, { name: 'wanted' });
    const held = (): string[] => iommu.mappings().map(({ range }) => String(range));
    if (refused === undefined) {
      iommu.mapDma(wanted);
      t.true(held().includes(String(map)));
      t.is(held().length, before.length + 1);
      return;
    }
    const error = throwsCode(t, () => iommu.mapDma(wanted), refused.code);
    t.is(error.errno, refused.errno);
    t.is(error.target, 'sim');
    t.is(error.range, map);
    t.true(error.message.includes('sim') && error.message.includes('"wanted"') && error.message.includes(String(map)));
    t.regex(error.message, refused.advice);
    t.deepEqual(held(), before.map(String));
  });
}

test('map: overlap before the IOVA range → EEXIST', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  iommu.mapDma(await request(AddressRange.of(MSI - PAGE, PAGE)));
  const overlapping = await request(AddressRange.of(MSI - PAGE, at(2)));
  const error = throwsCode(t, () => iommu.mapDma(overlapping), 'ERR_IOVA_OVERLAP');
  t.is(error.errno, 'EEXIST');
});

test('maps all of a batch or none', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu({ maxMappings: 3 });
  iommu.mapDma(await request(pages(0, 1)));
  const batch = [await request(pages(4, 1)), await request(pages(8, 1)), await request(pages(12, 1))];
  throwsCode(t, () => iommu.mapDmaBatch(batch), 'ERR_MAPPING_LIMIT');
  t.deepEqual(
    iommu.mappings().map(({ range }) => String(range)),
    ['0x0..0x1000'],
  );
  iommu.mapDmaBatch(batch.slice(0, 2));
  t.is(iommu.mappings().length, 3);
});

test('rejects a request without host memory', (t) => {
  const iommu = new SimulatedIommu();
  const error = throwsCode(
    t,
    () => iommu.mapDma({ range: pages(0, 1), backing: 'private', writable: true, kind: 'ram', name: 'r' }),
    'ERR_HOST_MEMORY_REQUIRED',
  );
  t.regex(error.message, /needsVa/);
  t.deepEqual(iommu.mappings(), []);
});

test('rejects host memory of another length', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  const leased = await request(pages(0, 2));
  throwsCode(t, () => iommu.mapDma({ ...leased, range: pages(0, 1) }), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => iommu.mapDma({ ...leased, range: pages(0, 3) }), 'ERR_INVALID_ARGUMENT');
  t.deepEqual(iommu.mappings(), []);
});

interface UnmapCase {
  readonly what: string;
  readonly unmap: AddressRange;
  readonly left: readonly string[];
  readonly errno?: 'EINVAL';
}

const ALL = ['0x1000..0x2000', '0x4000..0x8000', '0x8000..0xa000'];
const UNMAP: readonly UnmapCase[] = [
  { what: 'exactly one', unmap: pages(4, 4), left: ['0x1000..0x2000', '0x8000..0xa000'] },
  { what: 'two that adjoin', unmap: pages(4, 6), left: ['0x1000..0x2000'] },
  { what: 'all, with gaps', unmap: pages(0, 32), left: [] },
  { what: 'everything there is', unmap: AddressRange.of(0n, 1n << 64n), left: [] },
  { what: 'a gap at the end', unmap: pages(1, 3), left: ALL.slice(1) },
  { what: 'nothing, between two', unmap: pages(2, 2), left: ALL },
  { what: 'nothing, above all', unmap: pages(64, 4), left: ALL },
  { what: 'the first page of one', unmap: pages(4, 1), left: ALL, errno: 'EINVAL' },
  { what: 'the last page of one', unmap: pages(7, 1), left: ALL, errno: 'EINVAL' },
  { what: 'the middle of one', unmap: pages(5, 2), left: ALL, errno: 'EINVAL' },
  { what: 'one and half of the next', unmap: pages(4, 5), left: ALL, errno: 'EINVAL' },
  { what: 'half of one and the next', unmap: pages(6, 4), left: ALL, errno: 'EINVAL' },
  { what: 'all but the last page', unmap: pages(0, 9), left: ALL, errno: 'EINVAL' },
  { what: 'an unaligned range', unmap: AddressRange.of(0x800n, 0x1800n), left: ALL, errno: 'EINVAL' },
  { what: 'an unaligned range of nothing', unmap: AddressRange.of(0x20800n, 0x800n), left: ALL, errno: 'EINVAL' },
];

for (const { what, unmap, left, errno } of UNMAP) {
  test(`unmap: ${what} → ${errno ?? 'done'}`, async (t) => {
    const request = await requests(t);
    const iommu = new SimulatedIommu({ name: 'sim' });
    for (const range of [pages(1, 1), pages(4, 4), pages(8, 2)]) iommu.mapDma(await request(range));
    if (errno === undefined) {
      t.notThrows(() => iommu.unmapDma(unmap));
    } else {
      const error = throwsCode(t, () => iommu.unmapDma(unmap), 'ERR_UNMAP_FAILED');
      t.is(error.errno, errno);
      t.is(error.target, 'sim');
      t.is(error.range, unmap);
    }
    t.deepEqual(
      iommu.mappings().map(({ range }) => String(range)),
      left,
    );
  });
}

test('maps a range again after its unmap, which no longer counts against the limit', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu({ maxMappings: 1 });
  for (let round = 0; round < 3; round++) {
    iommu.mapDma(await request(pages(0, 2)));
    iommu.unmapDma(pages(0, 2));
  }
  t.deepEqual(iommu.mappings(), []);
});

test('uses the page size and IOVA ranges of the constructor', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu({ pageSize: 0x10000n, iovaRanges: [AddressRange.of(0x10000n, 0x100000n)] });
  const unaligned = await request(AddressRange.of(0x11000n, 0x10000n));
  const below = await request(AddressRange.of(0n, 0x10000n));
  throwsCode(t, () => iommu.mapDma(unaligned), 'ERR_UNALIGNED');
  throwsCode(t, () => iommu.mapDma(below), 'ERR_IOVA_UNREACHABLE');
  iommu.mapDma(await request(AddressRange.of(0x10000n, 0x10000n)));
  t.is(iommu.mappings().length, 1);
});

test('rejects invalid constructor arguments', (t) => {
  const wrong = <T>(value: unknown): T => value as T;
  const options: ConstructorParameters<typeof SimulatedIommu>[0][] = [
    { rules: wrong('type2') },
    { pageSize: 0n },
    { pageSize: 2048n },
    { pageSize: 5000n },
    { pageSize: -4096n },
    { pageSize: wrong(4096) },
    { maxMappings: NaN },
    { maxMappings: -1 },
    { maxMappings: wrong('3') },
    { iovaRanges: wrong([{ start: 0n, end: 1n }]) },
    { iovaRanges: wrong('all') },
  ];
  for (const [index, one] of options.entries()) {
    throwsCode(t, () => new SimulatedIommu(one), 'ERR_INVALID_ARGUMENT', `options ${index}`);
  }
});
