/**
 * Linux in a virtual machine that consists of parts of the example VMM.
 */
import { AddressRange, GuestMemory, PciHostBridge } from '../ts/index.ts';
import { VirtualMachine } from '../ts/kvm.ts';
import { buildAcpi } from '../examples/vmm/acpi/tables.ts';
import { ACPI_TABLES, ECAM, WINDOWS } from '../examples/vmm/address-map.ts';
import { parseBzImage } from '../examples/vmm/boot/bzimage.ts';
import { loadLinux } from '../examples/vmm/boot/linux.ts';
import { addDevices } from '../examples/vmm/devices/pci-devices.ts';
import { Power, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT } from '../examples/vmm/devices/power.ts';
import { SERIAL_LINE, SERIAL_PORT, SERIAL_PORTS, Serial } from '../examples/vmm/devices/serial.ts';

export const MEMORY_MIB = 256;
/** `quiet`: the console is slow. */
export const COMMAND_LINE = 'console=ttyS0 panic=-1 nokaslr tsc=reliable quiet';
/** A place without memory for {@link LinuxGuest.marked}. */
export const MARK: AddressRange = AddressRange.of(0xfe00_0000n, 0x1000n);

/** A guest with one processor. */
export interface LinuxGuest {
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  /** PCI addresses of devices that are bound to vfio-pci. Default: none */
  readonly devices?: readonly string[];
  /** Called before the kernel is loaded. */
  starts?(): void;
  /** Called with bytes of the console. */
  printed(text: string): void;
  /** Called when the guest writes to {@link MARK}. */
  marked?(value: number, exits: Exits): void;
}

/** The accesses of the guest that have reached JavaScript. */
export type Exits = ReturnType<VirtualMachine['inspect']>['exits'];

/** Boots it, and returns why it has stopped: `shutdown` if it has powered off. */
export async function runLinuxGuest(guest: LinuxGuest): Promise<string> {
  const ram = [AddressRange.of(0n, BigInt(MEMORY_MIB) << 20n)];
  await using memory = await GuestMemory.create({ ram: ram.map(({ start, length }) => ({ start, length })) });
  await using vm = await VirtualMachine.create({ memory });
  const bridge = new PciHostBridge({ memory, ecam: ECAM, windows: WINDOWS });
  vm.attach(bridge);
  await using _devices = await addDevices(memory, bridge, {
    devices: (guest.devices ?? []).map((bdf) => ({ bdf })),
    simulated: [],
    backend: 'auto',
  });
  const write = (bytes: Uint8Array): void => guest.printed(Buffer.from(bytes).toString('latin1'));
  using serial = new Serial({ line: vm.line(SERIAL_LINE), write });
  vm.ports.add(SERIAL_PORT, SERIAL_PORTS, serial);
  new Power((reason) => vm.stop(reason)).addTo(vm.ports);
  vm.mmio.add(MARK, {
    read: (_gpa, length) => new Uint8Array(length),
    write: (_gpa, [value = 0]) => guest.marked?.(value, vm.inspect().exits),
  });
  const { tables, rsdp } = buildAcpi({
    address: ACPI_TABLES,
    cpus: 1,
    ecam: ECAM,
    windows: WINDOWS,
    serial: { port: SERIAL_PORT, line: SERIAL_LINE },
    power: { sleepControl: SLEEP_CONTROL_PORT, sleepStatus: SLEEP_STATUS_PORT, reset: RESET_PORT },
  });
  guest.starts?.();
  memory.write(rsdp, tables);
  const kernel = parseBzImage(guest.kernel);
  const { initrd } = guest;
  loadLinux(memory, vm.cpus[0], { kernel, initrd, commandLine: COMMAND_LINE, ram, reserved: [ECAM], rsdp });
  return await vm.run();
}
