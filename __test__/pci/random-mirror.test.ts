// Random programs of a guest: config writes through a mirror have the effects of config writes, and no others.
import test from 'ava';
import fc from 'fast-check';
import { nvidiaConfigMirrors, nvidiaP2pClique } from '../../ts/index.ts';
import { seedOf } from '../support/seed.ts';
import { Fixture } from './support/fixture.ts';
import { MIRROR, MSI, placedGpu } from './support/gpu.ts';

const RUNS = 60;

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const registers = fc.oneof(
  fc.constantFrom(0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x30, 0x3c, 0x6c, 0x64, 0xc8, 0xcc),
  fc.nat(0x3f).map((dword) => 4 * dword),
);
const values = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 8 }),
  fc.constantFrom(0xd0, 0xe0, 0xff).map((high) => Uint8Array.of(0, 0, 0, high)),
  fc.constantFrom(0, 2, 6).map((low) => Uint8Array.of(low, 0)),
);
const programs = fc.array(
  fc.record({ offset: registers, bytes: values }).filter(({ offset }) => offset !== MSI),
  { minLength: 1, maxLength: 25, size: 'max' },
);

test('a guest that writes config space through a mirror has the same device as one that does not', async (t) => {
  const count = { writes: 0, mirrored: 0, moved: 0 };
  const property = fc.asyncProperty(programs, async (program: readonly Write[]) => {
    const teardowns: (() => void | Promise<void>)[] = [];
    const context = { teardown: (act: () => void | Promise<void>) => void teardowns.unshift(act) };
    const changes = { mirrors: nvidiaConfigMirrors(), capabilities: [nvidiaP2pClique(1)] };
    const [one, other] = [
      await placedGpu(context, await Fixture.create(context), changes),
      await placedGpu(context, await Fixture.create(context), changes),
    ];
    try {
      for (const { offset, bytes } of program) {
        await one.gpu.ecamWrite(offset, bytes);
        const bar = other.gpu.status()[0]?.range;
        count.writes += 1;
        if (bar === undefined) await other.gpu.ecamWrite(offset, bytes);
        else {
          await other.gpu.mmioWrite(bar.start + MIRROR + BigInt(offset), bytes);
          count.mirrored += 1;
          if (String(other.gpu.status()[0]?.range) !== String(bar)) count.moved += 1;
        }
        const [a, b] = [one, other].map(({ gpu }) => Buffer.from(gpu.ecamRead(0, 0x100)).toString('hex'));
        if (a !== b) throw new Error(`config space is ${b}, not ${a}`);
        const [decoded, mirrored] = [one, other].map(({ gpu }) => gpu.decodedBars.join());
        if (decoded !== mirrored) throw new Error(`decodes ${mirrored}, not ${decoded}`);
      }
    } finally {
      for (const teardown of teardowns) await teardown();
    }
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: RUNS, includeErrorInReport: true });
  t.log(count);
  t.true(count.mirrored > count.writes / 10 && count.moved > RUNS / 10, JSON.stringify(count));
});
