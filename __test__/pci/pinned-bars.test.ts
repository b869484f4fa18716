/** BARs pinned to one guest address, whatever the guest writes. */
import test from 'ava';
import { AssignedDevice } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { MEMORY, command, readBar64, writeBar64 } from './support/guest.ts';
import { MiB, RAM, Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;

test('keeps the address of a pinned BAR, whatever the guest writes', async (t) => {
  const fixture = await Fixture.create(t);
  const bars = [
    { index: 0, length: MiB, kind: 'memory64', hostAddress: 0x38_0000_0000n },
    { index: 2, length: MiB, kind: 'memory64' },
  ] as const;
  const device = fixture.simulated({ bars, msix: undefined } as never);
  const assigned = await fixture.assign(device, { 0: 'host', 2: HIGH });
  t.is(readBar64(assigned, 0), 0x38_0000_0000n);
  t.is(readBar64(assigned, 2), HIGH);
  await writeBar64(assigned, 2, LOW);
  t.is(readBar64(assigned, 2), HIGH);
  await command(assigned, MEMORY);
  t.true(fixture.reaches(HIGH, device, 2));
  t.true(fixture.reaches(0x38_0000_0000n, device, 0));
  await writeBar64(assigned, 2, 0xffff_ffff_ffff_ffffn);
  t.is(readBar64(assigned, 2), 0xffff_ffff_fff0_0000n, 'it can still be sized');
  t.true(fixture.reaches(HIGH, device, 2));
  await writeBar64(assigned, 2, LOW);
  t.is(readBar64(assigned, 2), HIGH);
  t.true(assigned.status().every(({ pinned }) => pinned));
});

test('rejects an invalid address of a pinned BAR, and leaves the device to the caller', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  t.teardown(() => device.close());
  const { memory } = fixture;
  for (const [bars, code, message] of [
    [{ 0: LOW + 1n }, 'ERR_UNALIGNED', /0x10000/],
    [{ 0: HIGH }, 'ERR_OUT_OF_RANGE', /32/],
    [{ 2: 1n << 45n }, 'ERR_OUT_OF_RANGE', /40 bits/],
    [{ 2: RAM }, 'ERR_OVERLAP', /ram0/],
    [{ 1: LOW }, 'ERR_INVALID_ARGUMENT', /BAR 1/],
    [{ 7: LOW }, 'ERR_INVALID_ARGUMENT', /0 to 5/],
    [{ 0: 'host' }, 'ERR_INVALID_ARGUMENT', /its host address is unknown/],
    [{ 0: 5 }, 'ERR_INVALID_ARGUMENT', /bigint/],
    [{ 0: LOW, 2: LOW }, 'ERR_OVERLAP', /BAR/],
  ] as const) {
    const error = await rejectsCode(t, AssignedDevice.create({ device, memory, bars: bars as never }), code);
    t.regex(error.message, message);
    t.regex(error.message, new RegExp(device.bdf));
  }
  const first = await fixture.assign(fixture.simulated(), { 2: LOW });
  await rejectsCode(t, AssignedDevice.create({ device, memory, bars: { 2: LOW } }), 'ERR_OVERLAP');
  await first.close();
  const second = await fixture.assign(device, { 2: LOW });
  t.is(readBar64(second, 2), LOW, 'closing a device releases its pinned addresses');
});
