// Values that are too large to be copied, or to be written into a message.
import test from 'ava';
import { GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { type RegisterFile, registers } from '../../ts/driver.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { PAGE } from '../support/pages.ts';
import { SUBJECTS } from './subjects.ts';
import type { Anything } from './values.ts';

/** An array that reports another length. */
function arrayOf(length: Anything): Anything {
  return new Proxy([], { get: (array, name) => (name === 'length' ? length : Reflect.get(array, name)) });
}

const LARGE: Readonly<Record<string, Anything>> = {
  'as many holes as an array can have': Object.assign([], { length: 2 ** 32 - 1 }),
  'a proxy of 2^53 - 1 elements': arrayOf(2 ** 53 - 1),
  'a bigint of a million bits': 1n << 1_000_000n,
  'a string of 16 MiB': 'x'.repeat(2 ** 24),
};

const MAX_CHARACTERS = 2000;

// `readHost` makes a host, whose lists are read where they are used.
const { 'hosts and the doctor': _hosts, ...subjects } = SUBJECTS;

for (const [subject, calls] of Object.entries(subjects)) {
  test(`${subject} reject values that are too large, in a message that is not`, async (t) => {
    const wrong: string[] = [];
    for (const [name, byParameter] of Object.entries(await calls(t))) {
      for (const [parameter, call] of Object.entries(byParameter)) {
        for (const [what, value] of Object.entries(LARGE)) {
          try {
            await call(value);
          } catch (error) {
            const { length } = (error as Error).message;
            if (error instanceof PeerDmaError && length <= MAX_CHARACTERS) continue;
            wrong.push(`${name}, ${parameter}, ${what}: ${length} characters, ${String(error).slice(0, 100)}`);
          }
        }
      }
    }
    t.deepEqual(wrong, []);
  });
}

test('rejects a typed array in place of named registers, whose names would exhaust the heap', async (t) => {
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: PAGE }] });
  t.teardown(() => device.close());
  const bytes: Anything = new Uint8Array(2 ** 28);
  const { message } = throwsCode(t, () => registers(device.regions[0] as RegisterFile, bytes), 'ERR_INVALID_ARGUMENT');
  t.is(message, 'expected an object for registers, not [object Uint8Array]');
});

test('rejects a list of more than 2^24 elements, before it is copied', async (t) => {
  const cases = [
    [2 ** 24 + 1, 'the number 16777217'],
    [NaN, 'the number NaN'],
    [-1, 'the number -1'],
    ['3', '3'],
  ] as const;
  for (const [length, text] of cases) {
    const { message } = await rejectsCode(t, GuestMemory.create({ ram: arrayOf(length) }), 'ERR_INVALID_ARGUMENT');
    t.is(message, `the stretches of ram: expected an array of at most 16777216 elements, not ${text}`);
  }
});
