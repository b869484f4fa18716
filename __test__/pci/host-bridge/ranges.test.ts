/** The guest addresses of a host bridge: ECAM, windows, and the checks of both. */
import test from 'ava';
import { inspect } from 'node:util';
import { AddressRange, GuestMemory, PciHostBridge } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { RegisterFunction } from './support/register-function.ts';

const KiB = 1n << 10n;
const MiB = 1n << 20n;
const GiB = 1n << 30n;
const of = (start: bigint, length: bigint): AddressRange => AddressRange.of(start, length);

test('exposes ECAM, its buses, and the windows in ascending order', (t) => {
  const given = [of(4n * GiB, GiB), of(3n * GiB, 512n * MiB)];
  const bridge = new PciHostBridge({ ecam: of(0xb000_0000n, 256n * MiB), windows: given });
  t.deepEqual(bridge.windows.map(String), ['0xc0000000..0xe0000000', '0x100000000..0x140000000']);
  t.is(String(bridge.ecam), '0xb0000000..0xc0000000');
  t.is(bridge.buses, 256);
  t.throws(() => (bridge.windows as AddressRange[]).pop(), { instanceOf: TypeError });
  t.is(new PciHostBridge({ ecam: of(0n, MiB), windows: [] }).buses, 1);
  const without = new PciHostBridge({ windows: [] });
  t.deepEqual([without.ecam, without.buses, without.windows], [undefined, 256, []]);
});

test('windows may end at 4 GiB, begin there, and adjoin each other and ECAM', (t) => {
  const windows = [of(3n * GiB, GiB), of(4n * GiB, GiB), of(5n * GiB, 4n * KiB), of(0xb000_0000n, 256n * MiB)];
  t.is(new PciHostBridge({ windows }).windows.length, 4);
  const ecam = of(0xb000_0000n, 256n * MiB);
  t.is(new PciHostBridge({ ecam, windows: [of(3n * GiB, MiB)] }).windows.length, 1);
});

test('rejects an ECAM that does not have a power of two of buses, or is not aligned to its length', (t) => {
  for (const [start, length, code, message] of [
    [0n, 3n * MiB, 'ERR_INVALID_ARGUMENT', /ECAM at 0x0\.\.0x300000 has 0x300000 bytes\. Pass 1 MiB for each bus/],
    [0n, 512n * KiB, 'ERR_INVALID_ARGUMENT', /0x80000 bytes/],
    [0n, MiB + 4n * KiB, 'ERR_INVALID_ARGUMENT', /0x101000 bytes/],
    [0n, 512n * MiB, 'ERR_INVALID_ARGUMENT', /up to 256 buses/],
    [MiB, 2n * MiB, 'ERR_UNALIGNED', /does not start at a multiple of its length, 0x200000\. Align it\./],
    [4n * KiB, MiB, 'ERR_UNALIGNED', /0x100000/],
  ] as const) {
    const range = of(start, length);
    const error = throwsCode(t, () => new PciHostBridge({ ecam: range, windows: [] }), code);
    t.regex(error.message, /^PciHostBridge: creation failed: /);
    t.regex(error.message, message);
    t.is(error.range, range);
  }
});

test('rejects windows that are not whole pages, or are on both sides of 4 GiB', (t) => {
  for (const [window, code, message] of [
    [of(0xc000_0010n, MiB), 'ERR_UNALIGNED', /is not a whole number of pages of 4 KiB\. Align both of its ends\./],
    [of(0xc000_0000n, 16n), 'ERR_UNALIGNED', /0xc0000000\.\.0xc0000010/],
    [of(3n * GiB, 2n * GiB), 'ERR_OUT_OF_RANGE', /is below and above 4 GiB\. Pass two windows/],
  ] as const) {
    const error = throwsCode(t, () => new PciHostBridge({ windows: [window] }), code);
    t.regex(error.message, message);
    t.is(error.range, window);
  }
});

test('rejects windows and ECAM that overlap, and names both', (t) => {
  const ecam = of(0xb000_0000n, 256n * MiB);
  const window = of(0xbfff_f000n, MiB);
  const overEcam = throwsCode(t, () => new PciHostBridge({ ecam, windows: [window] }), 'ERR_OVERLAP');
  const text = 'the window 0xbffff000..0xc00ff000 overlaps ECAM at 0xb0000000..0xc0000000. Move one of them.';
  t.is(overEcam.message, `PciHostBridge: creation failed: ${text}`);
  const windows = [of(4n * GiB, 2n * GiB), of(3n * GiB, MiB), of(5n * GiB, MiB)];
  const each = throwsCode(t, () => new PciHostBridge({ windows }), 'ERR_OVERLAP');
  t.regex(each.message, /the window 0x140000000\.\.0x140100000 overlaps the window 0x100000000\.\.0x180000000\./);
  throwsCode(t, () => new PciHostBridge({ windows: [window, window] }), 'ERR_OVERLAP');
});

test('rejects ranges over RAM, and beyond the width of guest memory', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 64n * MiB }], addressWidth: 36 });
  const over = throwsCode(
    t,
    () => new PciHostBridge({ memory, windows: [of(64n * MiB - 4n * KiB, MiB)] }),
    'ERR_OVERLAP',
  );
  t.regex(over.message, /the window 0x3fff000\.\.0x40ff000 overlaps the RAM "ram0" at 0x0\.\.0x4000000\. Move one/);
  throwsCode(t, () => new PciHostBridge({ memory, ecam: of(0n, MiB), windows: [] }), 'ERR_OVERLAP');
  const beyond = throwsCode(
    t,
    () => new PciHostBridge({ memory, windows: [of(64n * GiB - MiB, 2n * MiB)] }),
    'ERR_OUT_OF_RANGE',
  );
  t.regex(
    beyond.message,
    /passes the end of the guest's 36-bit address space\. Give .* an addressWidth of 37 or more\.$/,
  );
  new PciHostBridge({ memory, ecam: of(64n * MiB, MiB), windows: [of(64n * GiB - MiB, MiB)] });
});

test('shows its ranges and functions in the text for console.log', (t) => {
  const bridge = new PciHostBridge({ ecam: of(0xb000_0000n, MiB), windows: [of(3n * GiB, MiB)] });
  bridge.add('00:02.0', new RegisterFunction());
  t.is(
    inspect(bridge),
    'PciHostBridge { ECAM: 0xb0000000..0xb0100000, functions: 00:00.0 00:02.0, windows: 0xc0000000..0xc0100000 }',
  );
  const empty = new PciHostBridge({ windows: [] });
  empty.remove('00:00.0');
  t.is(inspect(empty), 'PciHostBridge { ECAM: none, functions: none, windows: none }');
  t.is(inspect({ empty }, { depth: 0 }), '{ empty: [PciHostBridge] }');
});
