// Calls of the package with any value throw only PeerDmaError.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DmaTarget, GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { PAGE } from '../support/pages.ts';
import { SUBJECTS } from './subjects.ts';
import { constants, publicSurface } from './surface.ts';
import { type Anything, type Calls, VALUES, options, trap } from './values.ts';

/** Exports that are not called. */
const CONSTANTS = ['ACS_CONTROLS', 'DEFAULT_PRIORITY'];

/** Calls with each value in each place. Reports all failures of a subject at once. */
async function tryAll(t: ExecutionContext, values: readonly Anything[], calls: Calls): Promise<void> {
  const raw: string[] = [];
  for (const [name, call] of Object.entries(calls)) {
    for (const [index, value] of values.entries()) {
      let thrown: unknown;
      try {
        await call(value);
      } catch (error) {
        thrown = error;
      }
      if (thrown === undefined || thrown instanceof PeerDmaError) continue;
      raw.push(`${name}, value ${index}: ${textOf(thrown)}`);
    }
  }
  t.deepEqual(raw, []);
}

function textOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? String(thrown.stack) : String(thrown);
  } catch {
    return 'without a text';
  }
}

for (const [subject, calls] of Object.entries(SUBJECTS)) {
  test(`${subject} throw nothing but PeerDmaError`, async (t) => {
    const named: Record<string, (value: Anything) => unknown> = {};
    for (const [name, byParameter] of Object.entries(await calls(t))) {
      for (const [parameter, call] of Object.entries(byParameter)) named[`${name}, ${parameter}`] = call;
    }
    await tryAll(t, VALUES, named);
  });
}

test('the calls of these tests are all that the package exports', async (t) => {
  const tables = await Promise.all(Object.values(SUBJECTS).map((calls) => calls(t)));
  const tried = tables.flatMap((table) => Object.keys(table));
  t.deepEqual(tried.sort(), (await publicSurface()).sort());
  t.deepEqual(constants().sort(), CONSTANTS);
});

test('targets cause only PeerDmaError in guest memory, with any properties and results', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(16n * PAGE);
  const plain = { name: 'x', mapDma: () => undefined, unmapDma: () => undefined };
  const follow = async (target: object): Promise<void> => {
    const handle = await memory.dmaMappers.addDmaMapper(target as DmaTarget);
    try {
      handle.status();
      memory.inspect();
      memory.explain(16n * PAGE);
      await handle.refresh();
      await (await DmaBuffer.allocate(memory, PAGE)).close();
      await bar.mapToGuest(32n * PAGE);
      await bar.mapToGuest(16n * PAGE);
    } finally {
      await memory.dmaMappers.targetClosed(target as DmaTarget);
    }
  };
  const traits = [
    'name',
    'needsVa',
    'mapsForProcessors',
    'accepts',
    'mapDma',
    'unmapDma',
    'mapDmaBatch',
    'isRevoked',
    'iovaRanges',
  ];
  const methods = traits.slice(4);
  const answers = methods.map((name) => [
    `${name}()`,
    (value: Anything): unknown => follow({ ...plain, [name]: () => value }),
  ]);
  await tryAll(t, VALUES, { ...options(plain, follow, traits), ...Object.fromEntries(answers) });
  for (const name of traits) {
    const target = Object.defineProperty({ ...plain }, name, { get: trap });
    const expected = { instanceOf: PeerDmaError, code: 'ERR_INVALID_ARGUMENT', message: /looked/ };
    await t.throwsAsync(follow(target), expected);
  }
  const throwing = methods.map((name): [string, (value: Anything) => unknown] => [
    name,
    (value) => follow({ ...plain, [name]: value }),
  ]);
  await tryAll(t, [trap], Object.fromEntries(throwing));
});
