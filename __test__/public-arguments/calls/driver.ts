/**
 * Calls of what drivers use: DMA buffers, registers and events.
 */
import type { ExecutionContext } from 'ava';
import { EventFd, GuestMemory } from '../../../ts/index.ts';
import { DmaBuffer, registers, u32, u64 } from '../../../ts/driver.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { PAGE } from '../../support/pages.ts';
import { type Calls, options } from '../values.ts';

export async function driverCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: PAGE }] });
  const event = EventFd.create();
  t.teardown(async () => {
    event.close();
    await device.close();
    await memory.close();
  });
  const bar = device.regions[0];
  if (bar === undefined) throw new Error('the device has a BAR');
  return {
    'DmaBuffer.allocate': {
      memory: (value) => DmaBuffer.allocate(value, PAGE),
      length: async (value) => (await DmaBuffer.allocate(memory, value)).close(),
      ...options({ name: 'x', alignment: PAGE, addressWidth: 32, signal: undefined }, async (given) =>
        (await DmaBuffer.allocate(memory, PAGE, given)).close(),
      ),
    },
    registers: {
      file: (value) => registers(value, { a: u32(0n) }).a,
      base: (value) => registers(bar, { a: u32(0n) }, value),
      ...options({ a: u32(0n) }, (layout) => registers(bar, layout)),
      ...options({ ...u32(0n) }, (register) => registers(bar, { a: register })),
    },
    u32: { offset: u32 },
    u64: { offset: u64 },
    'EventFd#signal': { count: (value) => event.signal(value) },
    'EventFd#wait': options({ signal: undefined }, (given) => {
      event.signal();
      return event.wait(given);
    }),
    'EventFd#onSignal': {
      callback: (value) => {
        event.take();
        event.onSignal(value);
        event.onSignal(undefined);
      },
    },
  };
}
