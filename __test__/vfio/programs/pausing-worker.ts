/**
 * A worker whose machine waits for a pause that never ends. It posts a message then, and goes on until its termination.
 */
import { parentPort } from 'node:worker_threads';
import { GuestMemory } from '../../../ts/index.ts';
import { VirtualMachine, realModeAt } from '../../../ts/kvm.ts';

const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4n << 20n }] });
const vm = await VirtualMachine.create({ memory });
const called = new Promise<void>((resolve) => {
  const write = (): Promise<void> => {
    resolve();
    return new Promise(() => {});
  };
  vm.ports.add(0x50, 1, { read: () => 0, write });
});
memory.write(0x1000n, Uint8Array.of(0xe6, 0x50)); // out 0x50, al
vm.cpus[0].setRegisters(realModeAt(0x1000n));
const run = vm.run();
await called;
const pause = vm.pause();
parentPort?.postMessage('the pause waits');
await Promise.all([run, pause]);
