/**
 * A machine that boots Linux: RAM, processors, a PCI bus, ACPI, a serial console and power-off.
 */
import { readFile } from 'node:fs/promises';
import { GuestMemory, PciHostBridge } from 'peerdma';
import { recordJournal } from 'peerdma/inspect';
import { VirtualMachine } from 'peerdma/kvm';
import { buildAcpi } from './acpi/tables.ts';
import { ACPI_TABLES, ECAM, WINDOWS, ramRanges } from './address-map.ts';
import type { GuestArguments } from './arguments.ts';
import { loadLinux } from './boot/linux.ts';
import { addDevices } from './devices/pci-devices.ts';
import { Power, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT } from './devices/power.ts';
import { SERIAL_LINE, SERIAL_PORT, SERIAL_PORTS, Serial } from './devices/serial.ts';
import { Terminal } from './terminal.ts';

/**
 * Runs a guest with its console on this terminal.
 *
 * @returns why it stopped: `shutdown` or `reset` by the guest, `triple-fault`, `quit` by Ctrl-A x, or the error of
 *   standard output
 */
export async function runGuest(options: GuestArguments): Promise<string> {
  const ram = ramRanges(options.memory);
  await using memory = await GuestMemory.create({ ram: ram.map(({ start, length }) => ({ start, length })) });
  using _journal = options.journal === undefined ? undefined : recordJournal(memory, options.journal);
  await using vm = await VirtualMachine.create({ memory, cpus: options.cpus });
  const bridge = new PciHostBridge({ memory, ecam: ECAM, windows: WINDOWS });
  vm.attach(bridge);
  await using _devices = await addDevices(memory, bridge, options);

  using terminal = new Terminal({
    receive: (keys) => serial.receive(keys),
    quit: () => vm.stop('quit'),
    outputFailed: ({ message }) => vm.stop(`standard output: ${message}`),
  });
  using serial = new Serial({ line: vm.line(SERIAL_LINE), write: (bytes) => terminal.write(bytes) });
  vm.ports.add(SERIAL_PORT, SERIAL_PORTS, serial);
  new Power((reason) => vm.stop(reason)).addTo(vm.ports);

  const { tables, rsdp } = buildAcpi({
    address: ACPI_TABLES,
    cpus: options.cpus,
    ecam: ECAM,
    windows: WINDOWS,
    serial: { port: SERIAL_PORT, line: SERIAL_LINE },
    power: { sleepControl: SLEEP_CONTROL_PORT, sleepStatus: SLEEP_STATUS_PORT, reset: RESET_PORT },
  });
  memory.write(rsdp, tables);
  const kernel = await readFile(options.kernel);
  const initrd = options.initrd === undefined ? {} : { initrd: await readFile(options.initrd) };
  const commandLine = options.append;
  loadLinux(memory, vm.cpus[0], { kernel, ...initrd, commandLine, ram, reserved: [ECAM], rsdp });
  return await vm.run();
}
