/**
 * A process with a guest, and with an assigned device: `running-machine.ts [BDF]`. It prints a line when the guest
 * runs, and goes on until it is killed.
 */
import { writeSync } from 'node:fs';
import { AddressRange, AssignedDevice, GuestMemory, PciHostBridge } from '../../../ts/index.ts';
import { VirtualMachine, realModeAt } from '../../../ts/kvm.ts';
import { newManager } from '../support/backend.ts';

const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4n << 20n }] });
const vm = await VirtualMachine.create({ memory });
const bridge = new PciHostBridge({ memory, windows: [AddressRange.of(0xc000_0000n, 0x1000_0000n)] });
vm.attach(bridge);
const [bdf] = process.argv.slice(2);
if (bdf !== undefined) {
  bridge.add('00:01.0', await AssignedDevice.create({ device: await newManager(memory).open(bdf), memory }));
}
vm.ports.add(0x510, 1, { read: () => 0, write: () => void writeSync(1, 'the guest runs\n') });
// In real mode: mov dx, 0x510; out dx, al; jmp to itself.
memory.write(0x1000n, Uint8Array.of(0xba, 0x10, 0x05, 0xee, 0xeb, 0xfe));
vm.cpus[0].setRegisters(realModeAt(0x1000n));
await vm.run();
