/**
 * Power-off and reset of the example VMM.
 */
import test from 'ava';
import * as power from '../../examples/vmm/devices/power.ts';
import { PortSpace } from '../../ts/kvm/handlers.ts';

/** The ports of a machine, and the reasons of its stops. */
function machine(): { out: (port: number, value: number) => unknown; in: (port: number) => unknown; stops: string[] } {
  const stops: string[] = [];
  const ports = new PortSpace();
  new power.Power((reason) => stops.push(reason)).addTo(ports);
  return {
    out: (port, value) => ports.at(port)?.write(port, 1, value),
    in: (port) => ports.at(port)?.read(port, 1),
    stops,
  };
}

test('only the sleep type of power-off ends the run, when the guest enters it', (t) => {
  const { out, stops } = machine();
  for (let type = 0; type < 8; type++) out(power.SLEEP_CONTROL_PORT, type << 2);
  for (const type of [0, 1, 2, 3, 4, 6, 7]) out(power.SLEEP_CONTROL_PORT, (type << 2) | 0x20);
  t.deepEqual(stops, []);
  out(power.SLEEP_CONTROL_PORT, (power.SLEEP_TYPE_OFF << 2) | 0x20);
  t.deepEqual(stops, ['shutdown']);
});

test('ACPI and the PC reset the guest by one register', (t) => {
  const { out, in: read, stops } = machine();
  out(power.RESET_PORT, power.RESET_VALUE);
  t.deepEqual(stops, ['reset']);
  // Linux, native_machine_emergency_restart: the kind of reset first, then the bit that resets.
  const kept = Number(read(power.RESET_PORT)) & ~0x0e;
  out(power.RESET_PORT, kept | 0x02);
  t.deepEqual(stops, ['reset']);
  out(power.RESET_PORT, kept | 0x0e);
  t.deepEqual(stops, ['reset', 'reset']);
});

test('the guest has not woken, and each register ignores the values of the others', (t) => {
  const { out, in: read, stops } = machine();
  for (const value of [0xff, (power.SLEEP_TYPE_OFF << 2) | 0x20]) out(power.SLEEP_STATUS_PORT, value);
  t.is(read(power.SLEEP_STATUS_PORT), 0);
  out(power.SLEEP_CONTROL_PORT, power.RESET_VALUE);
  out(power.RESET_PORT, 0x20 & ~0x04);
  t.deepEqual(stops, []);
});

test('has three ports, and leaves those of PCI config space beside them free', (t) => {
  const ports = new PortSpace();
  const handler = { read: () => 0, write: () => {} };
  new power.Power(() => {}).addTo(ports);
  ports.add(0xcf8, 1, handler);
  ports.add(0xcfa, 6, handler);
  t.throws(() => ports.add(power.RESET_PORT, 1, handler), { code: 'ERR_OVERLAP' });
});
