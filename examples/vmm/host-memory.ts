/**
 * Checks that the machine has the memory for a guest.
 *
 * All RAM is faulted in when the virtual machine is created. Without the check, the kernel would end programs to free
 * memory, this one among them.
 */
import { SetupError } from './failures.ts';

const MiB = 1n << 20n;

/**
 * Requires memory for a guest.
 *
 * @param ram bytes of RAM of the guest
 * @param available bytes that the machine, or the cgroup of this process, has
 * @throws {SetupError} if the machine has less
 */
export function requireHostMemory(ram: bigint, available: bigint = BigInt(process.availableMemory())): void {
  if (ram <= available) return;
  const lengths = `the guest takes ${ram / MiB} MiB, and the machine has ${available / MiB} MiB available`;
  throw new SetupError(`--memory: ${lengths}. Give the guest less`);
}
