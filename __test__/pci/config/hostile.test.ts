// Invalid config spaces of broken or malicious devices: they are rejected, or the guest's view of them is valid.
import test from 'ava';
import fc from 'fast-check';
import { PeerDmaError } from '../../../ts/index.ts';
import { seedOf } from '../../support/seed.ts';
import { PlainDevice } from './plain-device.ts';
import { RECORDED, type Recorded, WRITTEN, recorded } from './recorded/load.ts';

const RUNS = 10_000;
const HIDDEN = [0x0e, 0x10, 0x15, 0x24];

/** The device if it is accepted, the error if not. */
function open(image: Recorded, msiVectors: number): PlainDevice | PeerDmaError {
  try {
    return new PlainDevice(image, { msiVectors });
  } catch (error) {
    if (error instanceof PeerDmaError && error.code === 'ERR_BAD_CONFIG_SPACE') return error;
    throw error;
  }
}

/** Walks both chains as a guest does, and returns their defects. */
function problem(device: PlainDevice, msiVectors: number): string | undefined {
  for (const offset of device.chain()) {
    if (offset % 4 !== 0 || offset < 0x40 || offset > 0xfc) return `a capability at ${offset}`;
    if (msiVectors === 0 && device.read(offset, 1) === 0x05) return 'MSI where there is no vector';
  }
  for (const [id, offset] of device.extendedChain()) {
    if (offset % 4 !== 0 || offset < 0x100 || offset > 0xffc) return `an extended capability at ${offset}`;
    if (HIDDEN.includes(id)) return `extended capability ${id}`;
  }
  return undefined;
}

/** Runs the images, and returns how many were accepted. */
function run(images: fc.Arbitrary<Recorded>, seed: number, numRuns: number): { taken: number; refused: number } {
  const count = { taken: 0, refused: 0 };
  const program = fc.property(images, fc.constantFrom(0, 1, 32), fc.nat(255), (image, msiVectors, later) => {
    const device = open(image, msiVectors);
    if (device instanceof PeerDmaError) {
      count.refused += 1;
      return;
    }
    count.taken += 1;
    const before = [device.chain(), device.extendedChain()];
    const wrong = problem(device, msiVectors);
    if (wrong !== undefined) throw new Error(wrong);
    // Later values of the device have no effect.
    device.bytes.fill(later);
    const after = [device.chain(), device.extendedChain()];
    if (JSON.stringify(after) !== JSON.stringify(before)) throw new Error('the chains have changed');
    device.decodeOn();
    device.readDecodeRegisters();
    void device.decoded;
  });
  fc.assert(program, { seed, numRuns, endOnFailure: false });
  return count;
}

const lengths = fc.array(
  fc.option(fc.oneof(fc.bigInt(1n, 0x10000n), fc.bigInt(0n, (1n << 64n) - 1n)), { nil: undefined }),
  { maxLength: 9 },
);

test('random bytes', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 256, maxLength: 256, size: 'max' }),
    fc.uint8Array({ minLength: 256, maxLength: 256, size: 'max' }).map((start) => {
      const whole = new Uint8Array(4096);
      for (let at = 0; at < whole.length; at += start.length) whole.set(start.toReversed(), at);
      whole.set(start);
      return whole;
    }),
  );
  const images = fc.tuple(bytes, lengths).map(([image, regionLengths]) => {
    image[0x0e] = (image[0x0e] ?? 0) & 0x80; // or nearly all would be bridges
    return { bdf: 'random', bytes: image, regionLengths };
  });
  const count = run(images, seedOf(t), RUNS);
  t.log(count);
  t.true(count.refused > RUNS / 10 && count.taken > RUNS / 100, JSON.stringify(count));
});

test('real devices with some changed bytes', (t) => {
  const places = fc.oneof(
    fc.nat(0xff),
    fc.nat(0xfff),
    fc.constantFrom(0x06, 0x34), // where the chain begins
    fc.integer({ min: 0x10, max: 0x3f }).map((dword) => 4 * dword + 1), // links
    fc.integer({ min: 0x40, max: 0xff }).map((dword) => 4 * dword), // and those of the extended chain
    fc.integer({ min: 0x40, max: 0xff }).map((dword) => 4 * dword + 3),
    fc.constantFrom(0x100, 0x102, 0x103, 0x142, 0x143, 0x152, 0x153, 0x162, 0x163, 0x252, 0x253),
  );
  const values = fc.oneof(
    fc.nat(255),
    fc.nat(63).map((dword) => 4 * dword),
    fc.constantFrom(0, 0x05, 0x10, 0x11, 0x15, 0x24, 0xff),
  );
  const images = fc
    .tuple(
      fc.constantFrom(...RECORDED, ...WRITTEN),
      fc.array(fc.tuple(places, values), { minLength: 1, maxLength: 12 }),
    )
    .map(([name, changes]) => {
      const image = recorded(name);
      for (const [place, value] of changes) image.bytes[place % image.bytes.length] = value;
      return image;
    });
  const count = run(images, seedOf(t), RUNS);
  t.log(count);
  t.true(count.refused > RUNS / 10 && count.taken > RUNS / 10, JSON.stringify(count));
});
