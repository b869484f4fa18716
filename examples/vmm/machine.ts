/**
 * A machine that boots Linux: RAM, processors, a PCI bus, ACPI, a serial console and power-off.
 */
import { GuestMemory, PciHostBridge } from 'peerdma';
import { recordJournal } from 'peerdma/inspect';
import { VirtualMachine } from 'peerdma/kvm';
import { buildAcpi } from './acpi/tables.ts';
import { ACPI_TABLES, ECAM, WINDOWS, ramRanges } from './address-map.ts';
import type { GuestArguments } from './arguments.ts';
import { loadLinux } from './boot/linux.ts';
import { addDevices } from './devices/pci-devices.ts';
import { addHotplug } from './devices/hotplug.ts';
import { Power, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT } from './devices/power.ts';
import { SERIAL_LINE, SERIAL_PORT, SERIAL_PORTS, Serial } from './devices/serial.ts';
import { readInitrd, readKernel } from './files.ts';
import { requireHostMemory } from './host-memory.ts';
import { Terminal } from './terminal.ts';

/**
 * Runs a guest with its console on this terminal.
 *
 * @returns why it stopped: `shutdown` or `reset` by the guest, `triple-fault`, `quit` by Ctrl-A x, or the error of
 *   standard output
 * @throws {SetupError} for a file that is not as it has to be, and RAM that is too small for it or for the machine
 * @throws {PeerDmaError} if KVM, a device or the journal fails
 */
export async function runGuest(options: GuestArguments): Promise<string> {
  const kernel = await readKernel(options.kernel);
  const initrd = await readInitrd(options.initrd);
  requireHostMemory(options.memory + (options.hotplug?.length ?? 0n));
  const ram = ramRanges(options.memory);
  await using memory = await GuestMemory.create({ ram: ram.map(({ start, length }) => ({ start, length })) });
  using journal = options.journal === undefined ? undefined : recordJournal(memory, options.journal);
  await using vm = await VirtualMachine.create({ memory, cpus: options.cpus });
  const bridge = new PciHostBridge({ memory, ecam: ECAM, windows: WINDOWS });
  vm.attach(bridge);
  await using _devices = await addDevices(memory, bridge, options);
  using hotplug = options.hotplug && (await addHotplug(memory, vm, bridge, options.hotplug));

  const { tables, rsdp } = buildAcpi({
    address: ACPI_TABLES,
    cpus: options.cpus,
    ecam: ECAM,
    windows: WINDOWS,
    serial: { port: SERIAL_PORT, line: SERIAL_LINE },
    power: { sleepControl: SLEEP_CONTROL_PORT, sleepStatus: SLEEP_STATUS_PORT, reset: RESET_PORT },
  });
  memory.write(rsdp, tables);
  loadLinux(memory, vm.cpus[0], { kernel, initrd, commandLine: options.append, ram, reserved: [ECAM], rsdp });

  // Without an await before the run: Ctrl-A x stops only a machine that runs.
  using terminal = new Terminal({
    receive: (keys) => serial.receive(keys),
    quit: () => vm.stop('quit'),
    resize: (change) => hotplug?.resize(change),
    outputFailed: ({ message }) => vm.stop(`standard output: ${message}`),
  });
  using serial = new Serial({ line: vm.line(SERIAL_LINE), write: (bytes) => terminal.write(bytes) });
  vm.ports.add(SERIAL_PORT, SERIAL_PORTS, serial);
  new Power((reason) => vm.stop(reason)).addTo(vm.ports);
  const reason = await vm.run();
  if (journal?.failure !== undefined) throw journal.failure;
  return reason;
}
