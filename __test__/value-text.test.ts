/**
 * A number in place of a bigint, and the reverse: the error names both types.
 */
import test from 'ava';
import { AddressRange, GuestMemory, MemoryFile } from '../ts/index.ts';
import { explain } from '../ts/inspect.ts';
import { throwsCode } from './support/errors.ts';
import { Fixture } from './pci/support/fixture.ts';
import { guest } from './support/pages.ts';

/** Passes a value that the types forbid. */
const wrong = (value: unknown): never => value as never;

test('registers and config space report a number for a bigint, and a bigint for a number', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const region = device.regions.find((one) => one !== undefined);
  if (region === undefined) throw new Error('the device has no region');
  const assigned = await fixture.assign(device);
  const said = (act: () => unknown): string => throwsCode(t, act, 'ERR_INVALID_ARGUMENT').message;
  t.regex(
    said(() => region.write64(0n, wrong(5))),
    /^"value" is a bigint \(5n\), not the number 5$/,
  );
  t.regex(
    said(() => region.write32(0n, wrong(0xe000_0000n))),
    /^"value" is a number \(3758096384\), not the bigint 3758096384n$/,
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
    /^"offset" is a bigint \(5n\), not the number 5$/,
  );
  t.regex(
    said(() => region.read(0n, wrong(4n))),
    /^"length" is a number \(4\), not the bigint 4n$/,
  );
  const error = await t.throwsAsync(assigned.configWrite(0x10, 4, wrong(0xe000_0000n)));
  t.regex(error?.message ?? '', /^"value" is a number \(3758096384\), not the bigint 3758096384n$/);
  const offset = await t.throwsAsync(assigned.configWrite(wrong(0x10n), 4, 0));
  t.regex(offset?.message ?? '', /^"offset" is a number \(16\), not the bigint 16n$/);
});

test('so do ranges, memory and addresses', async (t) => {
  const memory = await guest(t);
  const said = (act: () => unknown): string => throwsCode(t, act, 'ERR_INVALID_ARGUMENT').message;
  t.regex(
    said(() => AddressRange.of(wrong(0), 4096n)),
    /^"start" is a bigint \(0n\), not the number 0$/,
  );
  t.regex(
    said(() => explain(memory.inspect(), wrong(5))),
    /^"address" is a bigint \(5n\), not the number 5$/,
  );
  t.regex(
    said(() => memory.read(0n, wrong(4n))),
    /^"length" is a number \(4\), not the bigint 4n$/,
  );
  const file = MemoryFile.create(4096n);
  t.teardown(() => file.close());
  const window = memory.newDeviceMemory({ name: 'w', length: 4096n });
  const backing = { file, offset: wrong(0) };
  const error = await t.throwsAsync(window.addMapping({ range: AddressRange.of(0n, 4096n), backing }));
  t.regex(error?.message ?? '', /^"offset" is a bigint \(0n\), not the number 0$/);
  const width = await t.throwsAsync(GuestMemory.create({ addressWidth: wrong(40n) }));
  t.regex(width?.message ?? '', /^"addressWidth" is a number \(40\), not the bigint 40n$/);
});
