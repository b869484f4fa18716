/** Guest accesses to BARs: the BAR of each address, the resulting device accesses, and emulated areas. */
import test from 'ava';
import { AddressRange, type DeviceRegion } from '../../ts/index.ts';
import { type EmulatedArea, Mmio, type PlacedBar } from '../../ts/pci/mmio.ts';
import { throwsCode } from '../support/errors.ts';

/** A region that records its accesses. */
function registers(length: bigint, log: string[]): DeviceRegion {
  const bytes = new Uint8Array(Number(length));
  const view = new DataView(bytes.buffer);
  return {
    index: 0,
    length,
    mmapAreas: [],
    hostAddress: undefined,
    backing: () => 'private',
    read: (offset, count) => {
      log.push(`read ${count} at ${offset}`);
      return bytes.slice(Number(offset), Number(offset) + count);
    },
    write: (offset, from) => {
      log.push(`write ${from.length} at ${offset}`);
      bytes.set(from, Number(offset));
    },
    read32: (offset) => view.getUint32(Number(offset), true),
    write32: (offset, value) => view.setUint32(Number(offset), value, true),
    read64: (offset) => {
      log.push(`read 8 at ${offset}`);
      return view.getBigUint64(Number(offset), true);
    },
    write64: (offset, value) => {
      log.push(`write 8 at ${offset}`);
      view.setBigUint64(Number(offset), value, true);
    },
  };
}

function placed(index: number, gpa: bigint, length: bigint, region: DeviceRegion): PlacedBar {
  return { index, range: AddressRange.of(gpa, length), region };
}

test('makes one device access for an aligned guest access, and splits others', (t) => {
  const log: string[] = [];
  const bars = [placed(0, 0x1000n, 0x100n, registers(0x100n, log))];
  const mmio = new Mmio({ memory: 0, bdf: '0000:00:01.0' }, []);
  for (const width of [1, 2, 4, 8]) {
    const bytes = Uint8Array.from({ length: width }, (_, index) => 0xa0 + index);
    mmio.write(bars, 0x1010n, bytes);
    t.deepEqual(mmio.read(bars, 0x1010n, width), bytes);
    t.deepEqual(log.splice(0), [`write ${width} at 16`, `read ${width} at 16`]);
  }
  const bytes = Uint8Array.from({ length: 11 }, (_, index) => index + 1);
  mmio.write(bars, 0x1023n, bytes);
  t.deepEqual(log.splice(0), ['write 1 at 35', 'write 4 at 36', 'write 4 at 40', 'write 2 at 44']);
  t.deepEqual(mmio.read(bars, 0x1023n, 11), bytes);
  t.deepEqual(log, ['read 1 at 35', 'read 4 at 36', 'read 4 at 40', 'read 2 at 44']);
});

test('dispatches each address to its BAR; reads all ones and drops writes elsewhere', (t) => {
  const logs: [string[], string[]] = [[], []];
  const bars = [
    placed(0, 0x1000n, 0x100n, registers(0x100n, logs[0])),
    placed(2, 0x1100n, 0x1000n, registers(0x1000n, logs[1])),
  ];
  const mmio = new Mmio({ memory: 0, bdf: '0000:00:01.0' }, []);
  mmio.read(bars, 0x10fcn, 4);
  mmio.read(bars, 0x1100n, 4);
  t.deepEqual(logs, [['read 4 at 252'], ['read 4 at 0']]);
  for (const log of logs) log.length = 0;
  for (const [gpa, wanted, first, second] of [
    [0xffcn, [255, 255, 255, 255, 0, 0, 0, 0], ['read 4 at 0', 'write 4 at 0'], []],
    [0x10fcn, [0, 0, 0, 0, 0, 0, 0, 0], ['read 4 at 252', 'write 4 at 252'], ['read 4 at 0', 'write 4 at 0']],
    [0x20ffn, [0, 255, 255], [], ['read 1 at 4095', 'write 1 at 4095']],
    [0x2100n, [255], [], []],
    [0n, [255, 255, 255, 255], [], []],
  ] as const) {
    t.deepEqual([...mmio.read(bars, gpa, wanted.length)], [...wanted]);
    mmio.write(bars, gpa, new Uint8Array(wanted.length));
    t.deepEqual(
      logs.map((log) => log.splice(0)),
      [first, second],
    );
  }
  t.deepEqual(mmio.read([], 0x1000n, 4), new Uint8Array(4).fill(0xff));
  throwsCode(t, () => mmio.read(bars, 0x1000n, 0), 'ERR_EMPTY_RANGE');
  throwsCode(t, () => mmio.read(bars, 0x1000n, -1), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => mmio.read(bars, 0x1000n, 1.5), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => mmio.write(bars, 0x1000n, 'ab' as unknown as Uint8Array), 'ERR_INVALID_ARGUMENT');
});

test('accesses emulated areas with relative offsets, and never the device', (t) => {
  const log: string[] = [];
  const asked: string[] = [];
  const area: EmulatedArea = {
    bar: 0,
    range: AddressRange.of(0x40n, 0x20n),
    reason: 'it is emulated',
    read: (offset, length) => {
      asked.push(`read ${length} at ${offset}`);
      return new Uint8Array(length).fill(0x5a);
    },
    write: (offset, bytes) => void asked.push(`write ${bytes.join(' ')} at ${offset}`),
  };
  const mmio = new Mmio({ memory: 0, bdf: '0000:00:01.0' }, [area]);
  const bars = [placed(0, 0x1000n, 0x100n, registers(0x100n, log)), placed(1, 0x2000n, 0x100n, registers(0x100n, log))];
  t.deepEqual(mmio.read(bars, 0x1048n, 4), new Uint8Array(4).fill(0x5a));
  mmio.write(bars, 0x105en, Uint8Array.of(7, 8));
  t.deepEqual(asked.splice(0), ['read 4 at 8', 'write 7 8 at 30']);
  t.deepEqual(log, []);
  // The same offset of another BAR, and what lies just outside.
  mmio.read(bars, 0x2048n, 4);
  mmio.read(bars, 0x103cn, 4);
  mmio.read(bars, 0x1060n, 4);
  t.deepEqual([log, asked], [['read 4 at 72', 'read 4 at 60', 'read 4 at 96'], []]);
  // One that begins before it and ends within is cut where it begins.
  mmio.read(bars, 0x103cn, 8);
  t.deepEqual([log.slice(3), asked], [['read 4 at 60'], ['read 4 at 0']]);
});

test('reads all ones and drops writes past the region of a BAR with a larger register', (t) => {
  const log: string[] = [];
  const bars = [placed(0, 0x1000n, 0x100n, registers(0x60n, log))];
  const mmio = new Mmio({ memory: 0, bdf: '0000:00:01.0' }, []);
  t.deepEqual(mmio.read(bars, 0x1060n, 4), new Uint8Array(4).fill(0xff));
  mmio.write(bars, 0x10f8n, new Uint8Array(8));
  t.deepEqual(log, []);
  t.deepEqual(mmio.read(bars, 0x105cn, 4), new Uint8Array(4));
});
