// Capabilities that the VMM adds to the guest's config space: where they are placed, and what a guest can do to them.
import test from 'ava';
import { type AddedCapability, type ErrorCode, nvidiaP2pClique } from '../../../ts/index.ts';
import { readCapabilities } from '../../../ts/pci/config/added-capabilities.ts';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed } from './plain-device.ts';
import type { Recorded } from './recorded/load.ts';

type Source = ConstructorParameters<typeof PlainDevice>[0];

function withAdded(source: Source, ...added: readonly AddedCapability[]): PlainDevice {
  return new PlainDevice(source, { added: readCapabilities('0000:01:00.0', added) });
}

function bytesAt(device: PlainDevice, offset: number, length: number): string {
  return Buffer.from(Array.from({ length }, (_, index) => device.read(offset + index, 1))).toString('hex');
}

/** A graphics function from Turing on: a vendor-specific capability at 0xb4, and MSI-X at 0xc8. */
function turing(): Recorded {
  return changed('written-gpu', {
    0x79: [0xb4],
    0xb4: [0x09, 0xc8, 0x14, 0x01],
    0xc8: [0x11, 0x00, 0x05, 0x00, 0x00, 0x00, 0xb9, 0x00, 0x00, 0x00, 0xba, 0x00],
  });
}

test('adds NVIDIA’s approval as the last capability, with the clique number in bits 3 to 6 of its last word', (t) => {
  const device = withAdded('written-gpu', nvidiaP2pClique(5));
  t.deepEqual(device.chain(), [0x60, 0x68, 0x78, 0xc8]);
  // Identifier, link, length, the signature "P2P", and the clique number.
  t.is(bytesAt(device, 0xc8, 8), '09000850' + '32502800');
  t.is(device.read(0xc8, 4), 0x50080009);
  t.is(device.read(0xcc, 4), (5 << 19) | 0x5032, 'as QEMU and cloud-hypervisor write it');
  t.is(withAdded('written-gpu', nvidiaP2pClique(15)).read(0xcc, 4), (15 << 19) | 0x5032);
});

test('adds NVIDIA’s approval at 0xd4 if MSI-X is at 0xc8, and elsewhere if both are in use', (t) => {
  t.deepEqual(withAdded(turing(), nvidiaP2pClique(0)).chain(), [0x60, 0x68, 0x78, 0xb4, 0xc8, 0xd4]);
  const both = { ...turing(), bytes: Uint8Array.from(turing().bytes) };
  both.bytes[0xd5] = 0x40; // a register outside of all capabilities
  t.deepEqual(withAdded(both, nvidiaP2pClique(0)).chain(), [0x60, 0x68, 0x78, 0xb4, 0xc8, 0x40]);
});

test('rejects clique numbers that do not fit 4 bits', (t) => {
  for (const clique of [-1, 16, 1.5, NaN]) {
    const { message } = throwsCode(t, () => nvidiaP2pClique(clique), 'ERR_OUT_OF_RANGE');
    t.true(message.includes('a clique number is 0 to 15'), message);
  }
});

test('adds a capability to a device without one, and reports in Status that there is a chain', (t) => {
  const device = withAdded('ivshmem', { id: 9, body: Uint8Array.of(4, 0xab) });
  t.is(device.read(0x06, 2) & 0x10, 0x10);
  t.deepEqual(device.chain(), [0x40]);
  t.is(bytesAt(device, 0x40, 4), '090004ab');
});

test('pads a capability to whole dwords that no guest can write', (t) => {
  const device = withAdded('edu', { id: 9, body: Uint8Array.of(5, 1, 2) }, { id: 9, body: Uint8Array.of(3) });
  const [first = 0, second = 0] = device.chain().slice(1);
  t.is(second, first + 8);
  device.bytes.fill(0xff, first, second + 4);
  t.is(bytesAt(device, first, 12), `09${second.toString(16)}050102000000` + '09000300');
  for (const size of [1, 2, 4]) {
    for (let offset = first; offset < second + 4; offset += size) {
      device.write(offset, size, 2 ** (8 * size) - 1);
      t.deepEqual(device.told, [], `${offset}`);
    }
  }
  t.is(bytesAt(device, first, 12), `09${second.toString(16)}050102000000` + '09000300');
});

test('keeps an added capability over a reset of the function', (t) => {
  const device = withAdded('written-nic', { id: 9, body: Uint8Array.of(4, 7), offset: 0x8c });
  device.state = device.config.afterReset(device.state);
  t.is(device.chain().at(-1), 0x8c);
  t.is(bytesAt(device, 0x8c, 4), '090004' + '07');
});

test('places capabilities with an offset first, and keeps their order in the chain', (t) => {
  const body = Uint8Array.of(8, 0, 0, 0, 0, 0);
  const device = withAdded('ivshmem', { id: 9, body }, { id: 9, body, offset: 0x40 }, { id: 9, body, offset: 0x50 });
  t.deepEqual(device.chain(), [0x48, 0x40, 0x50]);
});

test('uses the bytes of no hidden capability', (t) => {
  const [added] = readCapabilities('', [{ id: 9, body: Uint8Array.of(4, 0), offset: 0x44 }]);
  const overMsi = () => new PlainDevice('edu', { msiVectors: 0, added: added ? [added] : [] });
  const { message } = throwsCode(t, overMsi, 'ERR_OVERLAP');
  t.true(message.includes('overlap the capability at 0x40'), message);
  const anywhere = readCapabilities('', [{ id: 9, body: Uint8Array.of(4, 0) }]);
  t.deepEqual(new PlainDevice('edu', { msiVectors: 0, added: anywhere }).chain(), [0x50]);
});

test('rejects an invalid identifier, body or offset, and names the reason', (t) => {
  const body = Uint8Array.of(4, 0);
  const wrong: [AddedCapability, ErrorCode, RegExp][] = [
    [{ id: 0, body }, 'ERR_OUT_OF_RANGE', /an identifier is 1 to 254, not the number 0/],
    [{ id: 255, body }, 'ERR_OUT_OF_RANGE', /not the number 255/],
    [{ id: 0x10d, body }, 'ERR_OUT_OF_RANGE', /Extended capabilities, of 16 bits, cannot be added/],
    [{ id: 1.5, body }, 'ERR_OUT_OF_RANGE', /not the number 1.5/],
    ...[0x01, 0x05, 0x10, 0x11, 0x13].map((id): [AddedCapability, ErrorCode, RegExp] => [
      { id, body },
      'ERR_INVALID_ARGUMENT',
      /a guest writes its registers/,
    ]),
    [{ id: 9, body: new Uint8Array() }, 'ERR_OUT_OF_RANGE', /1 to 190 bytes, not 0/],
    [{ id: 9, body: new Uint8Array(191) }, 'ERR_OUT_OF_RANGE', /1 to 190 bytes, not 191/],
    [{ id: 9, body, offset: 0x3c }, 'ERR_OUT_OF_RANGE', /an offset is 0x40 to 0xfc, not the number 60/],
    [{ id: 9, body, offset: 0x100 }, 'ERR_OUT_OF_RANGE', /not the number 256/],
    [{ id: 9, body, offset: 0x42 }, 'ERR_UNALIGNED', /0x42 is not a multiple of 4/],
    [{ id: 9, body, preferredOffsets: [0x80, 0x42] }, 'ERR_UNALIGNED', /0x42/],
  ];
  for (const [added, code, pattern] of wrong) {
    const { message } = throwsCode(t, () => withAdded('edu', added), code, String(pattern));
    t.regex(message, pattern);
    t.regex(message, /^0000:01:00.0: adding capability .* failed: .*\. [A-Z].*\.$/);
  }
});

test('rejects offsets over capabilities and the end of config space, and capabilities without room', (t) => {
  const body = Uint8Array.of(8, 0, 0, 0, 0, 0);
  const at = (offset: number): AddedCapability => ({ id: 9, body, offset });
  const overlapping: [Source, AddedCapability[]][] = [
    ['written-gpu', [at(0x78)]], // the header of PCI Express
    ['written-gpu', [at(0xb0)]], // the last of its 60 bytes
    ['written-nic', [at(0xfc - 4)]], // within a vendor-specific capability of 16 bytes
    ['written-gpu', [at(0xc8), at(0xcc)]], // two added ones
    ['ivshmem', [{ id: 9, body: new Uint8Array(190) }, at(0x40)]],
    [
      'ivshmem',
      [
        { id: 9, body: new Uint8Array(190) },
        { id: 9, body },
      ],
    ],
  ];
  for (const [source, added] of overlapping) throwsCode(t, () => withAdded(source, ...added), 'ERR_OVERLAP');
  const { message } = throwsCode(t, () => withAdded('ivshmem', at(0xfc)), 'ERR_OUT_OF_RANGE');
  t.true(message.includes('its 8 bytes at 0xfc pass the end of its part of config space at 0x100'), message);
  t.deepEqual(withAdded('written-gpu', at(0xb4)).chain().at(-1), 0xb4, 'directly behind PCI Express');
});

test('adds nothing beyond the end of a truncated config space', (t) => {
  const whole = changed('edu', {});
  const added = { id: 9, body: Uint8Array.of(4, 0) };
  throwsCode(t, () => withAdded({ ...whole, bytes: whole.bytes.subarray(0, 64) }, added), 'ERR_OVERLAP');
  const most = { ...whole, bytes: whole.bytes.subarray(0, 160) };
  t.deepEqual(withAdded(most, added).chain(), [0x40, 0x50]);
  throwsCode(t, () => withAdded(most, { ...added, offset: 0xa0 }), 'ERR_OUT_OF_RANGE');
});

test('assumes that a capability of unknown length ends at the next one', (t) => {
  const unknown = changed('edu', { 0x41: [0x80], 0x80: [0x0c, 0xa0], 0xa0: [0x08, 0x00] });
  const at = (offset: number): AddedCapability => ({ id: 9, body: Uint8Array.of(4, 0), offset });
  throwsCode(t, () => withAdded(unknown, at(0x9c)), 'ERR_OVERLAP');
  throwsCode(t, () => withAdded(unknown, at(0xfc)), 'ERR_OVERLAP');
  t.deepEqual(withAdded(unknown, at(0x50)).chain(), [0x40, 0x80, 0xa0, 0x50]);
});
