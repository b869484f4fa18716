/**
 * A number where a bigint is due, and the reverse: the message says which is due and which came.
 */
import test from 'ava';
import { AddressRange, GuestMemory, MemoryFile, explain } from '../ts/index.ts';
import { throwsCode } from './support/errors.ts';
import { Fixture } from './pci/support/fixture.ts';
import { guest } from './support/pages.ts';

/** Passes what the types forbid. */
const wrong = (value: unknown): never => value as never;

test('registers and config space say that a bigint is due for a number, and a number for a bigint', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const region = device.regions.find((one) => one !== undefined);
  if (region === undefined) throw new Error('the device has no region');
  const assigned = await fixture.assign(device);
  const said = (act: () => unknown): string => throwsCode(t, act, 'ERR_INVALID_ARGUMENT').message;
  t.regex(
    said(() => region.write64(0n, wrong(5))),
    /64 bits is a bigint .*, not the number 5$/,
  );
  t.regex(
    said(() => region.write32(0n, wrong(0xe000_0000n))),
    /32 bits is a whole number .*, not the bigint 3758096384n$/,
  );
  t.regex(
    said(() => region.write64(0n, -1n)),
    /from 0n to 2\^64 - 1, not the bigint -1n$/,
  );
  t.regex(
    said(() => region.write32(0n, 2 ** 32)),
    /from 0 to 2\^32 - 1, not the number 4294967296$/,
  );
  t.regex(
    said(() => region.read(wrong(5), 4)),
    /an offset is a non-negative bigint, not the number 5$/,
  );
  t.regex(
    said(() => region.read(0n, wrong(4n))),
    /a length is a whole number of bytes, not the bigint 4n$/,
  );
  const error = await t.throwsAsync(assigned.configWrite(0x10, 4, wrong(0xe000_0000n)));
  t.regex(error?.message ?? '', /4 bytes is a whole number from 0 to 2\^32 - 1, not the bigint 3758096384n$/);
  const offset = await t.throwsAsync(assigned.configWrite(wrong(0x10n), 4, 0));
  t.regex(offset?.message ?? '', /an offset is a whole number from 0 on, not the bigint 16n$/);
});

test('ranges, memory and addresses say it too', async (t) => {
  const memory = await guest(t);
  const said = (act: () => unknown): string => throwsCode(t, act, 'ERR_INVALID_ARGUMENT').message;
  t.regex(
    said(() => AddressRange.of(wrong(0), 4096n)),
    /non-negative bigints, got the number 0 and the bigint 4096n$/,
  );
  t.regex(
    said(() => explain(memory.inspect(), wrong(5))),
    /an address is a bigint of 64 bits, not the number 5$/,
  );
  t.regex(
    said(() => memory.read(0n, wrong(4n))),
    /a whole number of bytes, not the bigint 4n$/,
  );
  const file = MemoryFile.create(4096n);
  t.teardown(() => file.close());
  const window = memory.newDeviceMemory({ name: 'w', length: 4096n });
  const backing = { file, offset: wrong(0) };
  const error = await t.throwsAsync(window.addMapping({ range: AddressRange.of(0n, 4096n), backing }));
  t.regex(error?.message ?? '', /is a non-negative bigint, not the number 0$/);
  const width = await t.throwsAsync(GuestMemory.create({ addressWidth: wrong(40n) }));
  t.regex(width?.message ?? '', /a whole number of bits from 12 to \d+, not the bigint 40n$/);
});
