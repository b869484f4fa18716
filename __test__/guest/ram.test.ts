// The options of RAM.
import test from 'ava';
import { fstatSync, readFileSync } from 'node:fs';
import { type ErrorCode, GuestMemory, MemoryFile, type RamOptions } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

const wrong = <T>(value: unknown): T => value as T;
const HUGE = 1n << 21n;

test('RAM is active at once: a new file by default, the given file, or private memory', async (t) => {
  const file = taggedFile(t, 'mine', 4, 0x20);
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: at(2), file },
      { start: at(8), length: PAGE, private: true },
      { start: at(12), length: PAGE, hugePages: 'transparent' },
    ],
  });
  t.deepEqual(
    memory.inspect().flat.map(({ start, region, backing, kind }) => `${start} ${region} ${backing} ${kind}`),
    ['0x0 ram0 ram0+0x0 ram', '0x4000 ram1 mine+0x0 ram', '0x8000 ram2 private ram', '0xc000 ram3 ram3+0x0 ram'],
  );
  t.deepEqual(memory.read(at(5), 1), Uint8Array.of(0x21));
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  t.is(target.held().length, 4);
});

test('rejects invalid and contradictory options', async (t) => {
  const file = taggedFile(t, 'file', 4, 1);
  const attempts: [what: string, code: ErrorCode, options: Partial<RamOptions>][] = [
    ['file and private', 'ERR_INVALID_ARGUMENT', { file, private: true }],
    ['2M and file', 'ERR_INVALID_ARGUMENT', { file, hugePages: '2M' }],
    ['1G and private', 'ERR_INVALID_ARGUMENT', { private: true, hugePages: '1G' }],
    ['unknown pages', 'ERR_INVALID_ARGUMENT', { hugePages: wrong('4M') }],
    ['pages by prototype', 'ERR_INVALID_ARGUMENT', { hugePages: wrong('toString') }],
    ['2M, length less', 'ERR_UNALIGNED', { hugePages: '2M', length: PAGE }],
    ['file too short', 'ERR_OUT_OF_RANGE', { file, length: at(5) }],
    ['a forged file', 'ERR_INVALID_ARGUMENT', { file: wrong({ length: at(4) }) }],
    ['unaligned', 'ERR_UNALIGNED', { start: 1n }],
    ['empty', 'ERR_EMPTY_RANGE', { length: 0n }],
    ['beyond the width', 'ERR_OUT_OF_RANGE', { start: 1n << 32n }],
    ['start a number', 'ERR_INVALID_ARGUMENT', { start: wrong(0) }],
    ['length NaN', 'ERR_INVALID_ARGUMENT', { length: wrong(NaN) }],
    ['negative', 'ERR_INVALID_ARGUMENT', { start: -PAGE }],
  ];
  for (const [what, code, options] of attempts) {
    const ram = [
      { start: at(16), length: PAGE },
      { start: 0n, length: PAGE, ...options },
    ];
    await rejectsCode(t, GuestMemory.create({ addressWidth: 32, ram }), code, what);
  }
});

test('rejects an absent NUMA node', async (t) => {
  for (const numaNode of [1023, 1 << 20, -1, NaN, 1.5]) {
    for (const how of [{}, { private: true }]) {
      const create = GuestMemory.create({ addressWidth: 32, ram: [{ start: 0n, length: PAGE, numaNode, ...how }] });
      const error = await t.throwsAsync(create, { name: 'PeerDmaError' }, `node ${numaNode}`);
      t.truthy(error);
    }
  }
});

const freeHugePages = Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
if (freeHugePages > 0) {
  test.skip('huge pages that are not reserved are an error (skipped: sysctl vm.nr_hugepages=0 first)', () => {});
} else {
  test('huge pages that are not reserved are an error with that reason', async (t) => {
    const ram: RamOptions[] = [{ start: 0n, length: HUGE, hugePages: '2M', prefault: true }];
    const error = await rejectsCode(t, GuestMemory.create({ addressWidth: 32, ram }), 'ERR_HUGE_PAGES_UNAVAILABLE');
    t.truthy(error.errno);
  });
}

test('RAM of huge pages must be aligned to them, which is checked before any is allocated', async (t) => {
  const ram: RamOptions[] = [{ start: PAGE, length: HUGE, hugePages: '2M' }];
  await rejectsCode(t, GuestMemory.create({ addressWidth: 32, ram }), 'ERR_UNALIGNED');
});

test('prefault allocates the pages before any target joins', async (t) => {
  const length = 4n << 20n;
  const files = [true, false].map((prefault) => ({ prefault, file: MemoryFile.create(length) }));
  for (const { file } of files) t.teardown(() => file.close());
  await guest(t, { ram: files.map((one, index) => ({ start: BigInt(index) * length, length, ...one })) });
  t.deepEqual(
    files.map(({ file }) => BigInt(fstatSync(file.fd).blocks) * 512n),
    [length, 0n],
  );
});
