// BARs and the ROM of a simulated device: memory, registers, and decoding.
import test from 'ava';
import { AddressRange, MemoryFile } from '../../../ts/index.ts';
import type { Backing } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { PAGE } from '../../support/pages.ts';
import { IO, MASTER, MEMORY, command, region, simulated } from './support.ts';

const MIB = 1n << 20n;

function fileOf(backing: Backing): MemoryFile {
  if (backing === 'private') throw new Error('a BAR is never private memory');
  return backing.file;
}

test('maps, reads and writes a memory BAR as a file', (t) => {
  const device = simulated(t, { bars: [{ index: 2, length: 16n * MIB, kind: 'memory64', prefetchable: true }] });
  const bar = region(device, 2);
  t.deepEqual(
    device.regions.map((one) => one?.index),
    [undefined, undefined, 2, undefined, undefined, undefined, undefined],
  );
  t.is(bar.length, 16n * MIB);
  t.deepEqual(bar.mmapAreas.map(String), ['0x0..0x1000000']);
  bar.write(MIB - 3n, Uint8Array.of(1, 2, 3, 4, 5));
  const backing = bar.backing(MIB);
  t.is(backing === 'private' ? undefined : backing.offset, MIB);
  const file = fileOf(backing);
  t.deepEqual(file.read(MIB - 3n, 5), Uint8Array.of(1, 2, 3, 4, 5));
  file.write(0n, Uint8Array.of(0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11));
  t.is(bar.read32(0n), 0x55667788);
  t.is(bar.read64(0n), 0x1122334455667788n);
  bar.write32(4n, 0xdeadbeef);
  bar.write64(8n, (1n << 64n) - 2n);
  t.deepEqual(file.read(4n, 12), Uint8Array.of(0xef, 0xbe, 0xad, 0xde, 0xfe, 255, 255, 255, 255, 255, 255, 255));
  t.deepEqual(bar.read(16n * MIB, 0), new Uint8Array());
  t.is(fileOf(bar.backing()), file);
  t.is(file.name, 'BAR 2 of 0000:00:06.0');
});

test('rejects invalid accesses', (t) => {
  const device = simulated(t, { bars: [{ index: 0, length: MIB }] });
  const bar = region(device, 0);
  throwsCode(t, () => bar.read(MIB - 1n, 2), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bar.write(MIB, Uint8Array.of(1)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bar.read(-1n, 2), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bar.read(0n, -1), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bar.write(0n, new Uint8Array(new SharedArrayBuffer(4))), 'ERR_INVALID_ARGUMENT');
  const unaligned = throwsCode(t, () => bar.read32(2n), 'ERR_UNALIGNED');
  t.is(unaligned.bdf, '0000:00:06.0');
  throwsCode(t, () => bar.write32(2n, 1), 'ERR_UNALIGNED');
  throwsCode(t, () => bar.read64(4n), 'ERR_UNALIGNED');
  throwsCode(t, () => bar.write64(4n, 1n), 'ERR_UNALIGNED');
  throwsCode(t, () => bar.read32(MIB), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bar.write64(MIB, 1n), 'ERR_OUT_OF_RANGE');
  for (const value of [-1, 2 ** 32, 1.5]) throwsCode(t, () => bar.write32(0n, value), 'ERR_INVALID_ARGUMENT');
  for (const value of [-1n, 1n << 64n]) throwsCode(t, () => bar.write64(0n, value), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bar.backing(MIB), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bar.backing(-1n), 'ERR_OUT_OF_RANGE');
  t.deepEqual(bar.read(0n, 64), new Uint8Array(64), 'and nothing was written');
});

test('rejects accesses while memory decode is off', (t) => {
  const device = simulated(t, { bars: [{ index: 0, length: MIB }], rom: { length: 2n * PAGE } });
  command(device, MASTER);
  for (const one of [region(device, 0), region(device, 6)]) {
    throwsCode(t, () => one.read(0n, 4), 'ERR_BAR_DISABLED');
    throwsCode(t, () => one.write(0n, new Uint8Array(4)), 'ERR_BAR_DISABLED');
    throwsCode(t, () => one.read32(0n), 'ERR_BAR_DISABLED');
    throwsCode(t, () => one.write64(0n, 1n), 'ERR_BAR_DISABLED');
  }
  t.notThrows(() => region(device, 0).backing(), 'mapping it is possible, and useless');
  command(device, MEMORY);
  t.is(region(device, 0).read32(0n), 0);
});

test('never maps an I/O BAR, and reads all ones while it does not decode', (t) => {
  const bar = { index: 1, length: 8n, kind: 'io' } as const;
  const device = simulated(t, { bars: [bar, { index: 0, length: MIB }] });
  const io = region(device, 1);
  t.deepEqual(io.mmapAreas, []);
  throwsCode(t, () => io.backing(), 'ERR_NO_SUCH_REGION');
  io.write(1n, Uint8Array.of(7));
  t.is(io.read32(0n), 0x700);
  command(device, MEMORY);
  t.is(io.read32(0n), 0xffffffff);
  t.deepEqual(io.read(0n, 8), new Uint8Array(8).fill(0xff));
  io.write(1n, Uint8Array.of(8));
  io.write32(4n, 8);
  command(device, IO);
  t.is(io.read64(0n), 0x700n);
});

test('reads the ROM, and rejects writing and mapping it', (t) => {
  const device = simulated(t, { rom: { length: 4n * PAGE, contents: Uint8Array.of(0x55, 0xaa) } });
  const rom = region(device, 6);
  t.is(rom.length, 4n * PAGE);
  t.deepEqual(rom.read(0n, 3), Uint8Array.of(0x55, 0xaa, 0));
  t.is(rom.read32(0n), 0xaa55);
  t.is(throwsCode(t, () => rom.write(0n, Uint8Array.of(1)), 'ERR_SYSTEM').errno, 'EINVAL');
  throwsCode(t, () => rom.write32(0n, 1), 'ERR_SYSTEM');
  throwsCode(t, () => rom.backing(), 'ERR_NO_SUCH_REGION');
  t.deepEqual(rom.mmapAreas, []);
});

test('passes single accesses of their width to registers', (t) => {
  const seen: string[] = [];
  const registers = {
    read: (offset: bigint, length: number) => {
      seen.push(`read ${offset}+${length}`);
      return Uint8Array.from({ length }, (_, index) => Number(offset) + index);
    },
    write: (offset: bigint, bytes: Uint8Array) => void seen.push(`write ${offset}: ${bytes.join(' ')}`),
  };
  const bar = region(simulated(t, { bars: [{ index: 0, length: MIB, registers }] }), 0);
  const did = (): string[] => seen.splice(0);
  t.deepEqual(bar.read(3n, 10), Uint8Array.of(3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  t.deepEqual(did(), ['read 3+1', 'read 4+4', 'read 8+4', 'read 12+1']);
  for (const length of [1, 2, 4]) bar.read(8n, length);
  t.deepEqual(did(), ['read 8+1', 'read 8+2', 'read 8+4']);
  t.is(bar.read32(4n), 0x07060504);
  t.is(bar.read64(8n), 0x0f0e0d0c0b0a0908n);
  t.deepEqual(did(), ['read 4+4', 'read 8+8']);
  bar.write(2n, Uint8Array.of(1, 2, 3, 4, 5, 6, 7));
  bar.write32(4n, 0x01020304);
  bar.write64(8n, 0x0102030405060708n);
  t.deepEqual(did(), [
    'write 2: 1 2',
    'write 4: 3 4 5 6',
    'write 8: 7',
    'write 4: 4 3 2 1',
    'write 8: 8 7 6 5 4 3 2 1',
  ]);
  t.deepEqual(bar.mmapAreas, []);
  throwsCode(t, () => bar.backing(), 'ERR_NO_SUCH_REGION');
});

test('rejects a wrong number of bytes from registers', (t) => {
  const registers = { read: () => new Uint8Array(3), write: () => {} };
  const bar = region(simulated(t, { bars: [{ index: 0, length: MIB, registers }] }), 0);
  t.regex(throwsCode(t, () => bar.read32(4n), 'ERR_INVALID_ARGUMENT').message, /0x4.*3 bytes/);
});

test('does not map a BAR that is not whole pages, unless requested', (t) => {
  const areas = [AddressRange.of(0n, PAGE)];
  const device = simulated(t, {
    bars: [
      { index: 0, length: 256n },
      { index: 1, length: PAGE + 256n },
      { index: 2, length: PAGE + 256n, mmapAreas: areas },
      { index: 3, length: MIB, mmapAreas: [] },
    ],
  });
  t.deepEqual(
    [0, 1, 2, 3].map((index) => region(device, index).mmapAreas),
    [[], [], areas, []],
  );
  throwsCode(t, () => region(device, 0).backing(), 'ERR_NO_SUCH_REGION');
  throwsCode(t, () => region(device, 3).backing(), 'ERR_NO_SUCH_REGION');
  t.notThrows(() => region(device, 2).backing());
  region(device, 1).write(PAGE + 255n, Uint8Array.of(9));
  t.deepEqual(region(device, 1).read(PAGE + 254n, 2), Uint8Array.of(0, 9));
});

test('leaves given contents to the caller', async (t) => {
  const contents = MemoryFile.create(2n * PAGE, { name: 'contents' });
  t.teardown(() => contents.close());
  contents.write(5n, Uint8Array.of(0x42));
  const device = simulated(t, { bars: [{ index: 0, length: PAGE, contents }] });
  const own = simulated(t, { bars: [{ index: 0, length: PAGE }] });
  t.deepEqual(region(device, 0).read(5n, 1), Uint8Array.of(0x42));
  region(device, 0).write(6n, Uint8Array.of(0x43));
  const made = fileOf(region(own, 0).backing());
  await device.close();
  await own.close();
  t.deepEqual(contents.read(5n, 2), Uint8Array.of(0x42, 0x43));
  throwsCode(t, () => made.read(0n, 1), 'ERR_CLOSED');
});

test('reads all ones from the MSI-X table and drops writes', (t) => {
  const table = { vectors: 3, bar: 0, tableOffset: 0x100n, pendingOffset: 0x200n };
  const device = simulated(t, {
    bars: [
      { index: 0, length: MIB },
      { index: 1, length: MIB },
    ],
    msix: table,
  });
  const bar = region(device, 0);
  bar.write(0xfen, new Uint8Array(52).fill(7));
  t.deepEqual(bar.read(0xfen, 52), Uint8Array.of(7, 7, ...new Uint8Array(48).fill(0xff), 7, 7));
  const file = fileOf(bar.backing());
  t.deepEqual(file.read(0xfen, 52), Uint8Array.of(7, 7, ...new Uint8Array(48), 7, 7), 'in the memory nothing has come');
  bar.write32(0x12cn, 5);
  t.is(bar.read32(0x12cn), 0xffffffff);
  bar.write32(0x130n, 5);
  t.is(bar.read32(0x130n), 5);
  t.is(bar.read32(0xfcn), 0x07070000);
  bar.write(0x1ffn, new Uint8Array(10).fill(7));
  t.deepEqual(bar.read(0x1ffn, 10), Uint8Array.of(7, ...new Uint8Array(8), 7), 'pending bits can only be read');
  region(device, 1).write32(0x100n, 3);
  t.is(region(device, 1).read32(0x100n), 3, 'another BAR has no table');
});

test('allocates no memory for a large BAR until it is written', (t) => {
  const bar = region(simulated(t, { bars: [{ index: 0, length: 32n << 30n, kind: 'memory64' }] }), 0);
  bar.write32((32n << 30n) - 4n, 0x1234);
  t.is(bar.read32((32n << 30n) - 4n), 0x1234);
  t.deepEqual(bar.mmapAreas, [AddressRange.of(0n, 32n << 30n)]);
});
