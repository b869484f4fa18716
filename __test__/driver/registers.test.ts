// A device's registers by name: one access each, with the right width and offset.
import test from 'ava';
import { type RegisterFile, registers, u32, u64 } from '../../ts/driver.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { throwsCode } from '../support/errors.ts';

test('makes one access for each property read and assignment', (t) => {
  const log: string[] = [];
  const file: RegisterFile = {
    read32: (offset) => (log.push(`read32 ${offset}`), 0x1234),
    write32: (offset, value) => void log.push(`write32 ${offset} ${value}`),
    read64: (offset) => (log.push(`read64 ${offset}`), 0x5678n),
    write64: (offset, value) => void log.push(`write64 ${offset} ${value}`),
  };
  const view = registers(file, { control: u32(4n), address: u64(8n) }, 0x100n);
  const control: number = view.control;
  const address: bigint = view.address;
  t.deepEqual([control, address], [0x1234, 0x5678n]);
  view.control |= 1;
  view.address = 9n;
  t.deepEqual(log, ['read32 260', 'read64 264', 'read32 260', 'write32 260 4661', 'write64 264 9']);
  t.deepEqual(Object.keys(view), ['control', 'address']);
  t.throws(() => ((view as { contrl?: number }).contrl = 1), { instanceOf: TypeError }, 'a name without a register');
});

test('passes errors of the region through', async (t) => {
  const device = new SimulatedDevice({ bdf: '0000:00:06.0', bars: [{ index: 0, length: 4096n, kind: 'memory32' }] });
  t.teardown(() => device.close());
  const [bar] = device.regions;
  if (bar === undefined) return t.fail();
  const view = registers(bar, { last: u32(4092n), beyond: u32(4096n), odd: u64(4n) });
  view.last = 0xffff_ffff;
  t.is(view.last, 0xffff_ffff);
  throwsCode(t, () => view.beyond, 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => view.odd, 'ERR_UNALIGNED');
  device.config.write(4n, Uint8Array.of(0, 0));
  throwsCode(t, () => (view.last = 1), 'ERR_BAR_DISABLED');
  return undefined;
});
