// Config space of a simulated device: writable bits, and the effects of writes.
import test from 'ava';
import { throwsCode } from '../../support/errors.ts';
import {
  CAPABILITY,
  COMMAND,
  D3_HOT,
  INTX_DISABLE,
  IO,
  MASTER,
  MEMORY,
  PMCSR,
  command,
  read16,
  region,
  simulated,
  write16,
} from './support.ts';

const ONES = Uint8Array.of(0xff, 0xff, 0xff, 0xff);
const BAR = [0, 1, 2, 3, 4, 5].map((index) => 0x10n + 4n * BigInt(index));
const ROM = 0x30n;
const MIB = 1n << 20n;

test('builds a config space with the IDs of the device', (t) => {
  const { config } = simulated(t, {
    ids: { vendor: 0x1af4, device: 0x1110, revision: 7, class: 0x010802, subsystemVendor: 0x1234, subsystem: 0xabcd },
    interruptPin: true,
  });
  t.is(config.length, 256n);
  t.is(config.index, 7);
  t.is(config.read32(0n), 0x11101af4);
  t.is(config.read32(8n), 0x01080207);
  t.is(config.read32(0x2cn), 0xabcd1234);
  t.deepEqual(config.read(0xen, 1), Uint8Array.of(0), 'header type');
  t.deepEqual(config.read(0x3dn, 1), Uint8Array.of(1), 'interrupt pin');
  t.is(read16(config, 6n) & 0x10, 0, 'no capabilities');
  t.is(simulated(t, { pcie: {} }).config.length, 4096n);
});

test('builds a chain of the requested capabilities', (t) => {
  const { config } = simulated(t, {
    bars: [{ index: 2, length: MIB }],
    powerManagement: { noSoftReset: true },
    msi: { vectors: 8, masking: true },
    msix: { vectors: 5, bar: 2, tableOffset: 0x1000n },
    pcie: {},
    advancedFeatures: true,
  });
  t.is(read16(config, 6n) & 0x10, 0x10);
  const ids: number[] = [];
  const found = new Map<number, bigint>();
  for (let at = config.read(0x34n, 1)[0] ?? 0; at !== 0; at = config.read(BigInt(at) + 1n, 1)[0] ?? 0) {
    t.is(at % 4, 0);
    const id = config.read(BigInt(at), 1)[0] ?? 0;
    ids.push(id);
    found.set(id, BigInt(at));
  }
  t.deepEqual(ids, [0x01, 0x05, 0x11, 0x10, 0x13]);
  const at = (id: number, offset: bigint): bigint => (found.get(id) ?? 0n) + offset;
  t.is(read16(config, at(0x01, 2n)), 3, 'version 3, neither D1 nor D2');
  t.is(read16(config, at(0x01, 4n)), 0x8, 'No_Soft_Reset, D0');
  t.is(read16(config, at(0x05, 2n)), 0x186, '8 messages, 64 bits, masks');
  t.is(read16(config, at(0x11, 2n)), 4, '5 vectors');
  t.is(config.read32(at(0x11, 4n)), 0x1002, 'table');
  t.is(config.read32(at(0x11, 8n)), 0x1052, 'pending bits, behind the table');
  t.is(config.read32(at(0x10, 4n)), 0x10000000, 'FLR');
  t.deepEqual(config.read(at(0x13, 2n), 2), Uint8Array.of(6, 3));
});

test('builds BAR registers with type, address and size', (t) => {
  const { config, regions } = simulated(t, {
    bars: [
      { index: 0, length: MIB, hostAddress: 0xfe000000n },
      { index: 1, length: 128n, kind: 'io' },
      { index: 2, length: 3n * MIB, kind: 'memory64', prefetchable: true, hostAddress: 0x8_0000_0000n },
      { index: 4, length: 8n },
    ],
    rom: { length: 5000n },
  });
  t.is(config.read32(BAR[0] ?? 0n), 0xfe000000);
  t.is(config.read32(BAR[1] ?? 0n), 0x1);
  t.is(config.read32(BAR[2] ?? 0n), 0xc);
  t.is(config.read32(BAR[3] ?? 0n), 0x8);
  t.is(config.read32(ROM), 0);
  for (const at of [...BAR, ROM]) config.write(at, ONES);
  const sizes = BAR.map((at) => config.read32(at));
  t.deepEqual(sizes, [0xfff00000, 0xffffff81, 0xffc0000c, 0xffffffff, 0xfffffff0, 0]);
  t.is(config.read32(ROM), 0xffffe001);
  config.write32(BAR[0] ?? 0n, 0x12345678);
  t.is(config.read32(BAR[0] ?? 0n), 0x12300000);
  t.deepEqual(
    regions.map((one) => one?.hostAddress),
    [0xfe000000n, undefined, 0x8_0000_0000n, undefined, undefined, undefined, undefined],
  );
});

test('decodes memory when it is opened, and is not a bus master', (t) => {
  t.is(read16(simulated(t, { bars: [{ index: 0, length: MIB }] }).config, COMMAND), MEMORY);
  t.is(read16(simulated(t, { bars: [{ index: 0, length: 8n, kind: 'io' }] }).config, COMMAND), IO);
  t.is(read16(simulated(t, { rom: { length: MIB } }).config, COMMAND), MEMORY);
});

test('stores supported bits of Command, and nothing in Status and the IDs', (t) => {
  const memory = simulated(t, { bars: [{ index: 0, length: MIB }], powerManagement: {} }).config;
  const status = read16(memory, 6n);
  memory.write(0n, new Uint8Array(16).fill(0xff));
  t.is(memory.read32(0n), 0x00011234);
  t.is(read16(memory, COMMAND), 0x546);
  t.is(read16(memory, 6n), status);
  t.deepEqual(memory.read(8n, 8), Uint8Array.of(0, 0, 0, 0xff, 0xff, 0, 0, 0), 'class, and cache line size');
  memory.write(0x3cn, ONES);
  t.deepEqual(memory.read(0x3cn, 4), Uint8Array.of(0xff, 0, 0, 0), 'interrupt line');
  const io = simulated(t, { bars: [{ index: 0, length: 8n, kind: 'io' }] }).config;
  write16(io, COMMAND, 0xffff);
  t.is(read16(io, COMMAND), 0x545);
});

test('reads and writes config space in any length, and requires aligned single accesses', (t) => {
  const { config } = simulated(t, { bars: [{ index: 0, length: MIB }] });
  t.is(config.read(0n, 256).length, 256);
  t.deepEqual(config.read(1n, 2), Uint8Array.of(0x12, 1));
  config.write(3n, Uint8Array.of(0xff, MASTER, INTX_DISABLE >> 8, 0xff));
  t.is(read16(config, COMMAND), MASTER | INTX_DISABLE);
  t.is(config.read64(0n) & 0xffffffffn, 0x00011234n);
  config.write64(0x18n, 0n);
  t.deepEqual(config.mmapAreas, []);
  t.is(config.hostAddress, undefined);
  throwsCode(t, () => config.backing(), 'ERR_NO_SUCH_REGION');
  throwsCode(t, () => config.read(250n, 8), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => config.read32(256n), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => config.read32(2n), 'ERR_UNALIGNED');
  throwsCode(t, () => config.read64(4n), 'ERR_UNALIGNED');
  throwsCode(t, () => config.write32(-4n, 0), 'ERR_INVALID_ARGUMENT');
});

test('rejects memory accesses in D3hot, and allows them in D0', (t) => {
  const device = simulated(t, { bars: [{ index: 0, length: MIB }], powerManagement: {} });
  const bar = region(device, 0);
  bar.write32(0n, 0x1234);
  write16(device.config, PMCSR, D3_HOT);
  t.is(read16(device.config, PMCSR), D3_HOT);
  t.is(read16(device.config, COMMAND), MEMORY, 'config space responds');
  const asleep = throwsCode(t, () => bar.read32(0n), 'ERR_BAR_DISABLED');
  t.regex(asleep.message, /region 0 of 0000:00:06\.0.*D3hot/);
  write16(device.config, PMCSR, 1);
  t.is(read16(device.config, PMCSR), D3_HOT, 'only D0 follows D3hot');
  write16(device.config, PMCSR, 0);
  t.is(bar.read32(0n), 0x1234);
});

test('reads all ones in D1 and D2 without an error', (t) => {
  const built = simulated(t, { bars: [{ index: 0, length: MIB }], powerManagement: {} }).config.read(0n, 256);
  const device = simulated(t, { config: built.with(Number(CAPABILITY) + 3, 0x6), bars: [{ index: 0, length: MIB }] });
  const bar = region(device, 0);
  bar.write32(0n, 0x1234);
  for (const state of [1, 2]) {
    write16(device.config, PMCSR, state);
    t.is(bar.read32(0n), 0xffffffff);
    t.is(bar.read64(8n), 0xffffffff_ffffffffn);
    t.deepEqual(bar.read(2n, 3), Uint8Array.of(0xff, 0xff, 0xff));
    bar.write32(0n, 5);
    bar.write(0n, Uint8Array.of(5));
  }
  command(device, 0);
  throwsCode(t, () => bar.read32(0n), 'ERR_BAR_DISABLED');
  command(device, MEMORY);
  write16(device.config, PMCSR, 0);
  t.is(bar.read32(0n), 0x1234);
});

test('ignores power states that the device does not support', (t) => {
  const recorded = simulated(t, { powerManagement: {} }).config.read(0n, 256);
  const without = simulated(t, { config: recorded }).config;
  for (const state of [1, 2]) {
    write16(without, PMCSR, state);
    t.is(read16(without, PMCSR), 0);
  }
  const pmc = Number(CAPABILITY) + 3;
  const withD1 = simulated(t, { config: recorded.with(pmc, 0x2) }).config;
  write16(withD1, PMCSR, 2);
  t.is(read16(withD1, PMCSR), 0);
  write16(withD1, PMCSR, 1);
  t.is(read16(withD1, PMCSR), 1);
});

test('enters only D3hot and D0 from D2', (t) => {
  const recorded = simulated(t, { powerManagement: {} }).config.read(0n, 256);
  const { config } = simulated(t, { config: recorded.with(Number(CAPABILITY) + 3, 0x6) });
  for (const [asked, taken] of [
    [2, 2],
    [1, 2],
    [3, 3],
    [0, 0],
    [1, 1],
  ] as const) {
    write16(config, PMCSR, asked);
    t.is(read16(config, PMCSR), taken, `D${asked}`);
  }
});

for (const noSoftReset of [false, true]) {
  test(`${noSoftReset ? 'keeps' : 'resets'} registers on waking up, and keeps config space`, (t) => {
    let resets = 0;
    const registers = { read: () => new Uint8Array(4), write: () => {}, reset: () => resets++ };
    const device = simulated(t, { bars: [{ index: 0, length: MIB, registers }], powerManagement: { noSoftReset } });
    device.config.write32(BAR[0] ?? 0n, 0xe0000000);
    command(device, MEMORY | MASTER);
    write16(device.config, PMCSR, D3_HOT);
    t.is(resets, 0);
    write16(device.config, PMCSR, 0);
    t.is(resets, noSoftReset ? 0 : 1);
    t.is(read16(device.config, COMMAND), MEMORY | MASTER);
    t.is(device.config.read32(BAR[0] ?? 0n), 0xe0000000);
    write16(device.config, PMCSR, 0);
    t.is(resets, noSoftReset ? 0 : 1, 'it was awake');
  });
}

test('stores address, data and masks of MSI, and enables it by connecting', (t) => {
  const { config } = simulated(t, { msi: { vectors: 4, masking: true } });
  config.write(CAPABILITY, new Uint8Array(24).fill(0xff));
  t.is(read16(config, CAPABILITY), 0x0005);
  t.is(read16(config, CAPABILITY + 2n), 0x01f4, 'messages in use; not enabled');
  t.is(config.read32(CAPABILITY + 4n), 0xfffffffc);
  t.is(config.read32(CAPABILITY + 8n), 0xffffffff);
  t.is(config.read32(CAPABILITY + 12n), 0x0000ffff);
  t.is(config.read32(CAPABILITY + 16n), 0xffffffff);
  t.is(config.read32(CAPABILITY + 20n), 0, 'pending bits');
  const short = simulated(t, { msi: { address64: false } }).config;
  short.write(CAPABILITY, new Uint8Array(16).fill(0xff));
  t.is(read16(short, CAPABILITY + 2n), 0x0070);
  t.is(short.read32(CAPABILITY + 4n), 0xfffffffc);
  t.is(short.read32(CAPABILITY + 8n), 0x0000ffff);
  t.is(short.read32(CAPABILITY + 12n), 0);
});

test('keeps MSI-X read-only', (t) => {
  const { config } = simulated(t, { bars: [{ index: 0, length: MIB }], msix: { vectors: 2048, bar: 0 } });
  const before = config.read(CAPABILITY, 12);
  t.is(read16(config, CAPABILITY + 2n), 0x7ff);
  config.write(CAPABILITY, new Uint8Array(12).fill(0xff));
  t.deepEqual(config.read(CAPABILITY, 12), before);
});

const RESETTABLE = {
  'the PCI Express capability': { options: { pcie: {} }, at: CAPABILITY + 8n, write: 0x8000 },
  'advanced features': { options: { advancedFeatures: true }, at: CAPABILITY + 4n, write: 0x0001 },
} as const;
for (const [name, { options, at, write }] of Object.entries(RESETTABLE)) {
  test(`resets registers at a function-level reset by ${name}, and keeps config space`, (t) => {
    let resets = 0;
    const registers = { read: () => new Uint8Array(4), write: () => {}, reset: () => resets++ };
    const device = simulated(t, { bars: [{ index: 0, length: MIB, registers }], ...options });
    command(device, MEMORY | MASTER);
    device.config.write32(BAR[0] ?? 0n, 0xe0000000);
    const before = device.config.read(0n, 256);
    write16(device.config, at, 0);
    t.is(resets, 0);
    write16(device.config, at, write);
    t.is(resets, 1);
    t.deepEqual(device.config.read(0n, 256), before);
    const high = write >= 0x100;
    device.config.write(high ? at + 1n : at, Uint8Array.of(high ? write >> 8 : write));
    t.is(resets, 2, 'one byte does');
  });
}

test('wakes the device at a function-level reset', (t) => {
  const device = simulated(t, { powerManagement: { noSoftReset: true }, advancedFeatures: true });
  write16(device.config, PMCSR, D3_HOT);
  write16(device.config, CAPABILITY + 12n, 1);
  t.is(read16(device.config, PMCSR), 0x8);
});

test('does not reset a device without function-level reset', (t) => {
  let resets = 0;
  const registers = { read: () => new Uint8Array(4), write: () => {}, reset: () => resets++ };
  const device = simulated(t, { bars: [{ index: 0, length: MIB, registers }], pcie: { flr: false } });
  device.config.write(CAPABILITY, new Uint8Array(0x3c).fill(0xff));
  t.is(resets, 0);
  t.is(read16(device.config, CAPABILITY + 8n), 0x7fff, 'the rest of Device Control is kept');
  t.is(read16(device.config, CAPABILITY + 0x28n), 0xffdf, 'Device Control 2 too');
});

test('starts with a recorded config space', (t) => {
  const first = simulated(t, {
    ids: { vendor: 0x8086, device: 0x10c9 },
    bars: [
      { index: 0, length: MIB, hostAddress: 0xf0000000n, prefetchable: true },
      { index: 2, length: MIB, kind: 'memory64', prefetchable: true, hostAddress: 0x10_0000_0000n },
      { index: 4, length: 32n, kind: 'io' },
    ],
    pcie: {},
    interruptPin: true,
  });
  const recorded = first.config.read(0n, 4096).with(0x800, 0x77);
  const bars = [0, 2, 4].map((index) => ({ index, length: index === 4 ? 32n : MIB }));
  const device = simulated(t, { config: recorded, bars });
  t.deepEqual(device.config.read(0n, 4096), recorded, 'kinds and addresses of the BARs too');
  t.is(region(device, 2).hostAddress, undefined);
  t.is(device.interrupts.count('intx'), 1);
  command(device, 0);
  t.is(recorded[4], MEMORY | IO, 'which stays as it is');
  const other = simulated(t, {
    config: recorded,
    bars: [{ index: 0, length: MIB, kind: 'memory32', prefetchable: false }],
  });
  t.is(other.config.read32(BAR[0] ?? 0n), 0xf0000000);
  t.is(other.config.read32(BAR[2] ?? 0n), 0xc, 'what is not given stays as recorded');
  other.config.write(BAR[2] ?? 0n, ONES);
  t.is(other.config.read32(BAR[2] ?? 0n), 0xc, 'and is read-only');
  t.is(simulated(t, { config: recorded, interruptPin: false }).interrupts.count('intx'), 0);
});

test('ends a broken chain of capabilities at the invalid link', (t) => {
  const recorded = simulated(t, { powerManagement: {}, msi: {} }).config.read(0n, 256);
  const chains = {
    'to itself': recorded.with(0x41, 0x40),
    'into the header': recorded.with(0x41, 0x10),
    'to the last byte': recorded.with(0x41, 0xff),
    'from nowhere': recorded.with(0x34, 0),
  };
  for (const [name, config] of Object.entries(chains)) {
    const device = simulated(t, { config });
    t.is(device.interrupts.count('msi'), 0, name);
    t.deepEqual(device.config.read(0n, 256), config, name);
  }
  const tail = new Uint8Array(recorded).with(0x41, 0xfc).with(0xfc, 0x05);
  t.is(simulated(t, { config: tail }).interrupts.count('msi'), 0, 'a capability that does not fit is none');
  const gone = simulated(t, { config: new Uint8Array(256).fill(0xff) });
  gone.config.write(0n, new Uint8Array(256));
  t.is(gone.config.read32(0n), 0xffffffff);
});
