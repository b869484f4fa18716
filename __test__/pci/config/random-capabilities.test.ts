// Random config spaces with random added capabilities, and guests that write at random.
import test from 'ava';
import fc from 'fast-check';
import { type AddedCapability, PeerDmaError } from '../../../ts/index.ts';
import { readCapabilities } from '../../../ts/pci/config/added-capabilities.ts';
import { occupiedBytes } from '../../../ts/pci/config/capability-lengths.ts';
import { ConfigImage } from '../../../ts/pci/config/config-image.ts';
import { seedOf } from '../../support/seed.ts';
import { PlainDevice } from './plain-device.ts';
import { RECORDED, type Recorded, WRITTEN, recorded } from './recorded/load.ts';

const RUNS = 3000;
const CODES = ['ERR_BAD_CONFIG_SPACE', 'ERR_OVERLAP', 'ERR_OUT_OF_RANGE'];

/** Real devices, some with changed bytes: other links, identifiers and lengths. */
const images = fc
  .tuple(
    fc.constantFrom(...RECORDED, ...WRITTEN),
    fc.array(fc.tuple(fc.integer({ min: 0x40, max: 0xff }), fc.nat(255)), { maxLength: 4 }),
    fc.constantFrom(256, 256, 4096, 160),
  )
  .map(([name, changes, size]): Recorded => {
    const image = recorded(name);
    for (const [place, value] of changes) image.bytes[place] = value;
    return { ...image, bytes: image.bytes.subarray(0, size) };
  });

const offsets = fc.integer({ min: 0x10, max: 0x3f }).map((dword) => 4 * dword);
const additions: fc.Arbitrary<AddedCapability[]> = fc.array(
  fc
    .record(
      {
        id: fc.constantFrom(0x02, 0x09, 0x09, 0x0c, 0xfe),
        body: fc.uint8Array({ minLength: 1, maxLength: 40 }),
        offset: offsets,
        preferredOffsets: fc.array(offsets, { maxLength: 3 }),
      },
      { requiredKeys: ['id', 'body'] },
    )
    .map((one) => one),
  { minLength: 1, maxLength: 4 },
);
const writes = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 0x3f }), fc.constantFrom(1, 2, 4), fc.nat(3), fc.nat(0xffffffff)),
  { maxLength: 60, size: 'max' },
);

function open(image: Recorded, added: readonly AddedCapability[], msiVectors: number): PlainDevice | PeerDmaError {
  try {
    return new PlainDevice(image, { msiVectors, added: readCapabilities(image.bdf, added) });
  } catch (error) {
    if (error instanceof PeerDmaError && CODES.includes(error.code)) return error;
    throw error;
  }
}

function requireThat(condition: boolean, problem: string): asserts condition {
  if (!condition) throw new Error(problem);
}

test('added capabilities end every chain, overlap nothing, and do not change by writes of a guest', (t) => {
  const count = { accepted: 0, rejected: 0, written: 0 };
  const property = fc.property(
    images,
    additions,
    fc.constantFrom(0, 32),
    writes,
    (image, added, msiVectors, program) => {
      const bare = open(image, [], msiVectors);
      const device = open(image, added, msiVectors);
      if (bare instanceof PeerDmaError || device instanceof PeerDmaError) {
        requireThat(device instanceof PeerDmaError, 'adding a capability repaired a config space');
        count.rejected += 1;
        return;
      }
      count.accepted += 1;
      const chain = device.chain(); // throws for a loop
      const own = bare.chain();
      requireThat(String(chain.slice(0, own.length)) === String(own), `${own} became ${chain}`);
      requireThat(chain.length === own.length + added.length, `${added.length} added to ${own} give ${chain}`);
      const places = chain.slice(own.length);
      const present = bare.config.capabilities.map(({ id, offset }) => ({ id, offset }));
      const used = occupiedBytes(new ConfigImage(image.bdf, image.bytes), present);
      const taken = new Set<number>();
      for (const { offset, length } of used) for (let at = offset; at < offset + length; at++) taken.add(at);
      const expected = new Map<number, number>();
      for (const [index, { id, body, offset }] of added.entries()) {
        const place = places[index] ?? 0;
        requireThat(place % 4 === 0 && place >= 0x40, `placed at ${place}`);
        requireThat(offset === undefined || offset === place, `${offset} was requested, not ${place}`);
        const link = chain[own.length + index + 1] ?? 0;
        for (const [at, value] of [id, link, ...body].entries()) {
          requireThat(!taken.has(place + at), `two have ${place + at}`);
          requireThat(place + at < Math.min(256, image.bytes.length), `past the end: ${place + at}`);
          taken.add(place + at);
          expected.set(place + at, value);
        }
      }
      const check = (): void => {
        for (const [at, value] of expected) requireThat(device.read(at, 1) === value, `byte ${at} has changed`);
      };
      check();
      for (const [dword, size, lane, value] of program) {
        const offset = 4 * dword + (lane - (lane % size));
        if (offset + size > image.bytes.length) continue;
        device.write(offset, size, Number(BigInt.asUintN(8 * size, BigInt(value))));
        for (const { offset: start, bytes } of device.told) {
          for (const at of bytes.keys()) requireThat(!expected.has(start + at), `the device received ${start + at}`);
        }
        count.written += 1;
      }
      check();
      device.state = device.config.afterReset(device.state);
      check();
      requireThat(String(device.chain()) === String(chain), 'the chain has changed');
    },
  );
  fc.assert(property, { seed: seedOf(t), numRuns: RUNS, includeErrorInReport: true });
  t.log(count);
  t.true(count.accepted > RUNS / 5 && count.rejected > RUNS / 10, JSON.stringify(count));
});
