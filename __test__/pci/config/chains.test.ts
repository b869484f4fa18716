// The chains of capabilities as a guest walks them.
import test from 'ava';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed } from './plain-device.ts';

test('shows the device’s chains if nothing is hidden', (t) => {
  t.deepEqual(new PlainDevice('edu').chain(), [0x40]);
  t.deepEqual(new PlainDevice('ivshmem').chain(), []);
  t.deepEqual(new PlainDevice('nvme').chain(), [0x40, 0x80, 0x60]);
  t.deepEqual(new PlainDevice('virtio-rng').chain(), [0xdc, 0xc8, 0xb4, 0xa4, 0x94, 0x84, 0x7c, 0x40]);
  t.deepEqual(new PlainDevice('nvme').extendedChain(), []);
  t.deepEqual(new PlainDevice('e1000e').extendedChain(), [
    [0x01, 0x100],
    [0x03, 0x140],
  ]);
});

test('hides SR-IOV, ARI and Resizable BAR', (t) => {
  t.deepEqual(new PlainDevice('igb').extendedChain(), [[0x01, 0x100]]);
  t.deepEqual(new PlainDevice('written-nic').extendedChain(), [
    [0x01, 0x100],
    [0x03, 0x140],
    [0x17, 0x1a0],
    [0x18, 0x1d0],
  ]);
});

test('replaces a hidden first capability by a null capability that links to the next one', (t) => {
  const device = new PlainDevice('written-gpu');
  t.is(device.read(0x100, 4), 0x25000000);
  t.deepEqual(device.extendedChain(), [
    [0x00, 0x100],
    [0x02, 0x250],
    [0x0b, 0x2a0],
  ]);
});

test('shows no extended chain if all capabilities are hidden', (t) => {
  const device = new PlainDevice(changed('written-gpu', { 0x102: [0x01, 0x00] }));
  t.is(device.read(0x100, 4), 0);
  t.deepEqual(device.extendedChain(), []);
});

test('keeps the versions of capabilities', (t) => {
  const device = new PlainDevice('written-nic');
  t.deepEqual(
    [0x100, 0x140, 0x1a0, 0x1d0].map((offset) => device.read(offset, 4)),
    [0x14020001, 0x1a010003, 0x1d010017, 0x00010018],
  );
});

test('reads 0 from hidden capabilities and drops writes', (t) => {
  const hidden: [device: PlainDevice, start: number, end: number, after: number][] = [
    [new PlainDevice('written-nic'), 0x150, 0x158, 0x158], // ARI
    [new PlainDevice('written-nic'), 0x160, 0x1a0, 0x1a4], // SR-IOV, and behind it the header of the next one
    [new PlainDevice('written-nic'), 0x1b0, 0x1bc, 0x1bc], // VF Resizable BAR
    [new PlainDevice('written-gpu'), 0x104, 0x10c, 0x10c], // Resizable BAR
    [new PlainDevice('edu', { msiVectors: 0 }), 0x40, 0x4e, 0x4e], // MSI
  ];
  for (const [device, start, end, after] of hidden) {
    device.bytes.fill(0xff, start, end);
    for (const size of [1, 2, 4]) {
      for (let offset = start; offset + size <= end; offset += size) {
        device.write(offset, size, 0);
        t.deepEqual(device.told, [], `${offset}`);
        t.is(device.read(offset, size), 0, `${offset}`);
      }
    }
    device.write(after, 1, 0x5a);
    t.deepEqual(device.told, [{ offset: after, bytes: Uint8Array.of(0x5a) }], 'and no more than that is');
    t.is(device.read(after, 1), 0x5a);
  }
});

test('hides all entries of a Resizable BAR capability', (t) => {
  // Two BARs: 4 + 2 * 8 bytes.
  const device = new PlainDevice(changed('written-gpu', { 0x108: [0x40] }));
  device.bytes.fill(0xff, 0x104, 0x11c);
  t.deepEqual([device.read(0x110, 4), device.read(0x114, 4)], [0, 0xffffffff]);
});

test('drops writes to links', (t) => {
  const device = new PlainDevice('written-nic');
  const before = [device.chain(), device.extendedChain()];
  for (const offset of [0x34, 0x40, 0x50, 0x70, 0xa0, 0xe0, 0xf0, 0x100, 0x140, 0x1a0, 0x1d0]) {
    device.write(offset, 1, 0xff);
    t.deepEqual(device.told, []);
    device.write(offset & 0xffe, 2, 0xffff);
    if (offset !== 0x34) t.deepEqual(device.told, []);
  }
  device.write(0x102, 2, 0xffff);
  t.deepEqual(device.told, []);
  t.deepEqual([device.chain(), device.extendedChain()], before);
});

test('hides MSI if the host supports no vector', (t) => {
  const nic = new PlainDevice('written-nic', { msiVectors: 0 });
  t.deepEqual(nic.chain(), [0x40, 0x70, 0xa0, 0xe0, 0xf0]);
  t.is(nic.read(0x40, 2), 0x7001);
  t.is(nic.config.control(nic.state).msi, undefined);
  t.deepEqual(new PlainDevice('edu', { msiVectors: 0 }).chain(), []);
  t.is(new PlainDevice('edu', { msiVectors: 0 }).read(0x34, 1), 0);
  t.deepEqual(new PlainDevice('igb', { msiVectors: 0 }).chain(), [0x40, 0x70, 0xa0]);
  t.deepEqual(new PlainDevice('written-conventional', { msiVectors: 0 }).chain(), [0x80, 0x90], 'the first of them');
});

test('shows no extended capabilities if extended config space does not respond at first', (t) => {
  for (const first of [0x00, 0xff]) {
    const device = new PlainDevice(changed('nvme', { 0x100: [first, first, first, first] }));
    t.is(device.read(0x100, 4), 0);
    device.bytes.set([0x10, 0x00, 0x01, 0x10], 0x100);
    t.deepEqual(device.extendedChain(), []);
    device.write(0x104, 4, 0x12345678);
    t.is(device.read(0x104, 4), 0x12345678, 'the rest is the device’s');
  }
});

const refusals: [title: string, device: Parameters<typeof changed>, message: RegExp][] = [
  ['a loop of one', ['edu', { 0x41: [0x40] }], /0x41: .*is 0x40, which the chain has visited already/],
  ['a loop', ['nvme', { 0x61: [0x80] }], /0x61: .*is 0x80, which the chain has visited already/],
  ['a chain that begins in the header', ['edu', { 0x34: [0x10] }], /0x34: .*is 0x10, which is outside 0x40\.\.0x100/],
  ['a chain into the header', ['edu', { 0x41: [0x3c] }], /0x41: .*is 0x3c, which is outside 0x40\.\.0x100/],
  ['a capability of ones', ['edu', { 0x40: [0xff, 0xff] }], /0x40: a capability reads as all ones/],
  ['an MSI that passes the end', ['edu', { 0x34: [0xfc], 0xfc: [5, 0, 0, 0] }], /0xfc: .*10 bytes, and passes the end/],
  ['an MSI-X that passes the end', ['edu', { 0x34: [0xf8], 0xf8: [17, 0, 0, 0] }], /0xf8: .*12 bytes, and passes/],
  ['two of one kind', ['edu', { 0x41: [0x60], 0x60: [5, 0] }], /0x60: it is the second capability of type 0x5/],
  [
    'a capability in another',
    ['edu', { 0x41: [0x48], 0x48: [9, 0] }],
    /0x48: a capability begins within the 14 bytes .* 0x40/,
  ],
  [
    'extended: a loop of one',
    ['e1000e', { 0x102: [0x02, 0x10] }],
    /0x102: .*is 0x100, which the chain has visited already/,
  ],
  ['extended: a loop', ['e1000e', { 0x142: [0x01, 0x10] }], /0x142: .*is 0x100, which the chain has visited already/],
  [
    'extended: a chain into the first part',
    ['e1000e', { 0x142: [0x01, 0x04] }],
    /0x142: .*is 0x40, which is outside 0x100/,
  ],
  [
    'extended: one of ones',
    ['e1000e', { 0x140: [255, 255, 255, 255] }],
    /0x140: an extended capability reads as all ones/,
  ],
  [
    'extended: SR-IOV over the end',
    ['e1000e', { 0x102: [2, 0xfd], 0xfd0: [0x10, 0, 1, 0] }],
    /0xfd0: .*64 bytes, and passes/,
  ],
  [
    'extended: a Resizable BAR over the end',
    ['e1000e', { 0x102: [0xc2, 0xff], 0xffc: [0x15, 0, 1, 0] }],
    /0xffc: a Resizable BAR.* passes the end/,
  ],
];

for (const [title, device, message] of refusals) {
  test(`rejects ${title}`, (t) => {
    const error = throwsCode(t, () => new PlainDevice(changed(...device)), 'ERR_BAD_CONFIG_SPACE');
    t.regex(error.message, message);
    t.regex(error.message, /^config space of 0000:01:00\.0 is invalid at /);
    t.is(error.bdf, '0000:01:00.0');
  });
}

test('rejects an overlap with a remedy other than a reset', (t) => {
  const device = changed('edu', { 0x41: [0x48], 0x48: [9, 0] });
  const { message } = throwsCode(t, () => new PlainDevice(device), 'ERR_BAD_CONFIG_SPACE');
  t.regex(message, /update the firmware of the device, or assign another one; run lspci -xxxx/);
  t.notRegex(message, /reset/);
});

test('hides an extended capability that begins within a hidden one', (t) => {
  // SR-IOV at 0x160, a serial number within its 64 bytes, another one behind them.
  const device = new PlainDevice(
    changed('igb', { 0x162: [1, 0x18], 0x180: [3, 0, 1, 0x1a], 0x1a0: [3, 0, 1, 0], 0x184: [1, 2, 3, 4] }),
  );
  t.deepEqual(device.extendedChain(), [
    [0x01, 0x100],
    [0x03, 0x1a0],
  ]);
  for (let offset = 0x160; offset < 0x1a0; offset += 4) {
    device.write(offset, 4, 0xffffffff);
    t.deepEqual(device.told, []);
    t.is(device.read(offset, 4), 0, `0x${offset.toString(16)}`);
  }
});

test('hides overlapping hidden capabilities to the last byte of either', (t) => {
  // Resizable BAR at 0x170, of six BARs and so 52 bytes, from within SR-IOV at 0x160 to behind it.
  const device = new PlainDevice(
    changed('igb', { 0x162: [1, 0x17], 0x170: [0x15, 0, 1, 0], 0x178: [0xc0], 0x1a0: [1, 2, 3, 4, 5, 6, 7, 8] }),
  );
  t.deepEqual(device.extendedChain(), [[0x01, 0x100]]);
  t.deepEqual([device.read(0x160, 4), device.read(0x1a0, 4), device.read(0x1a4, 4)], [0, 0, 0x08070605]);
});

test('ignores the capability pointer if Status has no capability list', (t) => {
  t.deepEqual(new PlainDevice(changed('edu', { 0x06: [0], 0x41: [0x40] })).chain(), []);
});
