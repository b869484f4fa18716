// Resets and closing of a simulated device.
import { readdirSync } from 'node:fs';
import test from 'ava';
import { AddressRange, GuestMemory } from '../../../ts/index.ts';
import { EventFd } from '../../../ts/event-fd.ts';
import type { SimulatedDeviceOptions } from '../../../ts/pci/simulated/options.ts';
import { SimulatedBus } from '../../../ts/pci/simulated/simulated-bus.ts';
import { SimulatedDevice } from '../../../ts/pci/simulated/simulated-device.ts';
import { rejectsCode, throwsCode } from '../../support/errors.ts';
import { PAGE } from '../../support/pages.ts';
import { COMMAND, D3_HOT, MASTER, MEMORY, PMCSR, command, read16, region, simulated, write16 } from './support.ts';

/** Registers that count how often they are reset. */
function counting(): {
  bar: { index: number; length: bigint; registers: { read(): Uint8Array; write(): void; reset(): void } };
  resets: () => number;
} {
  let resets = 0;
  const registers = { read: () => new Uint8Array(4), write: () => {}, reset: () => void resets++ };
  return { bar: { index: 0, length: PAGE, registers }, resets: () => resets };
}

test('resets registers and wakes the function, and keeps memory and config space', async (t) => {
  const { bar, resets } = counting();
  const bars = [bar, { index: 2, length: PAGE }];
  const device = simulated(t, { bars, powerManagement: { noSoftReset: true }, resettable: true });
  command(device, MEMORY | MASTER);
  device.config.write32(0x18n, 0xe0000000);
  region(device, 2).write32(0n, 0x1234);
  write16(device.config, PMCSR, D3_HOT);
  await device.reset();
  t.is(resets(), 1);
  t.is(read16(device.config, PMCSR) & 3, 0);
  t.is(read16(device.config, COMMAND), MEMORY | MASTER);
  t.is(device.config.read32(0x18n), 0xe0000000);
  t.is(region(device, 2).read32(0n), 0x1234);
});

const RESETTABLE: readonly [string, Partial<SimulatedDeviceOptions>, boolean][] = [
  ['nothing', {}, false],
  ['power management', { powerManagement: {} }, true],
  ['power management with No_Soft_Reset', { powerManagement: { noSoftReset: true } }, false],
  ['PCI Express', { pcie: {} }, true],
  ['PCI Express without FLR', { pcie: { flr: false } }, false],
  ['advanced features', { advancedFeatures: true }, true],
  ['advanced features, against its own bits', { advancedFeatures: true, resettable: false }, false],
  ['nothing, against its own bits', { resettable: true }, true],
];
for (const [name, options, can] of RESETTABLE) {
  test(`a device with ${name} can${can ? '' : 'not'} be reset on its own`, async (t) => {
    const { bar, resets } = counting();
    const device = simulated(t, { bars: [bar], ...options });
    if (can) await device.reset();
    else await rejectsCode(t, device.reset(), 'ERR_RESET_UNSUPPORTED');
    t.is(resets(), can ? 1 : 0);
  });
}

test('resets exactly the devices of the bus', async (t) => {
  const bus = new SimulatedBus();
  const counters = [counting(), counting(), counting()];
  const [a, b, c] = counters.map(({ bar }, index) =>
    simulated(t, { bdf: `0000:01:00.${index}`, bars: [bar], ...(index === 2 ? {} : { bus }) }),
  );
  if (a === undefined || b === undefined || c === undefined) throw new Error('three were made');
  t.deepEqual(bus.devices, [a, b]);
  const missing = await rejectsCode(t, a.hotReset([]), 'ERR_RESET_UNSUPPORTED');
  t.regex(missing.message, /0000:01:00\.1/);
  await rejectsCode(t, a.hotReset([c]), 'ERR_RESET_UNSUPPORTED');
  await rejectsCode(t, c.hotReset([a, b]), 'ERR_RESET_UNSUPPORTED');
  await rejectsCode(t, a.hotReset(3 as never), 'ERR_INVALID_ARGUMENT');
  t.deepEqual(
    counters.map(({ resets }) => resets()),
    [0, 0, 0],
  );
  await a.hotReset([c, b]);
  t.deepEqual(
    counters.map(({ resets }) => resets()),
    [1, 1, 0],
  );
  await b.hotReset([a, b]);
  t.deepEqual(
    counters.map(({ resets }) => resets()),
    [2, 2, 0],
  );
  await b.close();
  t.deepEqual(bus.devices, [a]);
  await a.hotReset([]);
  t.deepEqual(
    counters.map(({ resets }) => resets()),
    [3, 2, 0],
  );
});

test('rejects all calls after closing', async (t) => {
  const event = EventFd.create();
  t.teardown(() => event.close());
  const options = {
    bars: [
      { index: 0, length: PAGE },
      { index: 1, length: 8n, kind: 'io' },
    ],
    rom: { length: PAGE },
  } as const;
  const device = simulated(t, { ...options, msi: {}, interruptPin: true, resettable: true, bus: new SimulatedBus() });
  device.interrupts.connect('intx', [event]);
  await device.close();
  await device.close();
  for (const one of [device.config, region(device, 0), region(device, 1), region(device, 6)]) {
    throwsCode(t, () => one.read(0n, 4), 'ERR_CLOSED');
    throwsCode(t, () => one.read32(0n), 'ERR_CLOSED');
    throwsCode(t, () => one.write(0n, new Uint8Array(4)), 'ERR_CLOSED');
    throwsCode(t, () => one.write64(0n, 0n), 'ERR_CLOSED');
  }
  throwsCode(t, () => device.raise('intx'), 'ERR_CLOSED');
  throwsCode(t, () => device.interrupts.connect('msi', [event]), 'ERR_CLOSED');
  throwsCode(t, () => device.interrupts.reconnect('intx', 0, event), 'ERR_CLOSED');
  t.notThrows(() => device.interrupts.disconnect('intx'), 'nothing is connected');
  throwsCode(t, () => device.interrupts.unmaskIntx(), 'ERR_CLOSED');
  throwsCode(t, () => device.dmaRead(0n, 1), 'ERR_CLOSED');
  t.is(device.lastFault, undefined);
  await rejectsCode(t, device.reset(), 'ERR_CLOSED');
  await rejectsCode(t, device.hotReset([]), 'ERR_CLOSED');
  t.is(event.take(), 0n);
});

test.serial('closes every file on closing', async (t) => {
  const open = (): number => readdirSync('/proc/self/fd').length;
  const event = EventFd.create();
  t.teardown(() => event.close());
  const round = async (): Promise<void> => {
    await using device = new SimulatedDevice({
      bdf: '0000:00:06.0',
      bars: [
        { index: 0, length: PAGE },
        { index: 1, length: PAGE },
      ],
      rom: { length: PAGE },
      msix: { vectors: 8, bar: 0 },
      interruptPin: true,
    });
    device.interrupts.connect(
      'msix',
      Array.from({ length: 8 }, () => event),
    );
    device.interrupts.reconnect('msix', 3, event);
    device.interrupts.connect('request', [event]);
    device.interrupts.disconnect('msix');
    t.throws(() => device.interrupts.connect('msix', [event, event, 3 as never]), undefined, 'nothing of it is left');
  };
  await round();
  const before = open();
  for (let again = 0; again < 50; again++) await round();
  t.true(open() < before + 10, `${before} files before, ${open()} afterwards`);
});

test('reports ERR_CLOSED for a reset of a device that is closed meanwhile', async (t) => {
  const device = simulated(t, { bars: [{ index: 0, length: PAGE }], resettable: true });
  await using memory = await GuestMemory.create();
  const window = memory.newDeviceMemory({ name: 'BAR', length: PAGE });
  await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: region(device, 0).backing() });
  await window.mapToGuest(0x8000_0000n);
  const reset = device.reset();
  await device.close();
  await rejectsCode(t, reset, 'ERR_CLOSED');
});
