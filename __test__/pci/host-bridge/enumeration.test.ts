/** Firmware of a guest: scans the bus, sizes the BARs, and places them in the windows of the bridge. */
import test from 'ava';
import { Firmware } from '../../../examples/guest/firmware.ts';
import { scanBus } from '../../../examples/guest/pci-bus.ts';
import { GuestBar } from '../../../examples/guest/bar.ts';
import { PciHostBridge } from '../../../ts/index.ts';
import { BARS, Fixture } from '../support/fixture.ts';
import { ECAM, HIGH, LOW } from './support/guest.ts';
import { RegisterFunction } from './support/register-function.ts';

test('a scan finds every function of a device that has a function 0', async (t) => {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [LOW, HIGH] });
  t.deepEqual(scanBus(bridge), [], 'the host bridge only');
  const added = ['00:1f.7', '00:01.0', '00:02.0', '00:02.1', '00:02.7', '00:03.1', '00:1f.0', '01:00.0'];
  for (const address of added) bridge.add(address, await fixture.assign());
  const addresses = (): string[] => scanBus(bridge).map(({ address }) => address);
  t.deepEqual(addresses(), ['01.0', '02.0', '02.1', '02.7', '1f.0', '1f.7']);
  bridge.add('00:03.0', new RegisterFunction());
  bridge.remove('00:02.0');
  bridge.remove('00:1f.7');
  t.deepEqual(addresses(), ['01.0', '03.0', '03.1', '1f.0']);
});

test('firmware places all BARs in a window, and the driver reaches each of them there', async (t) => {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, windows: [LOW, HIGH] });
  for (const address of ['00:01.0', '00:01.1', '00:02.0']) bridge.add(address, await fixture.assign());
  const placed: { readonly bar: GuestBar; readonly value: number }[] = [];
  let next = LOW.start;
  for (const found of scanBus(bridge)) {
    const firmware = await Firmware.probe(found);
    t.deepEqual(
      firmware.bars.map(({ index, length }) => [index, length]),
      BARS.map(({ index, length }) => [index, length]),
    );
    next = await firmware.placeAll(next);
    await firmware.enable();
    for (const { index } of firmware.bars) {
      const bar = new GuestBar(found, firmware.addressOf(index));
      bar.write32(0x10n, placed.length + 1);
      placed.push({ bar, value: placed.length + 1 });
    }
  }
  t.true(next <= LOW.end);
  t.is(placed.length, 9);
  for (const { bar, value } of placed) t.is(bar.read32(0x10n), value);
});
