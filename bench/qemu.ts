/**
 * QEMU with KVM, the reference of virtual machines.
 */
import { spawnSync } from 'node:child_process';

export const QEMU = 'qemu-system-x86_64';

/** The options of a machine that has no devices but those of its chipset. */
export const MACHINE: readonly string[] = [
  '-nodefaults -no-user-config -no-reboot -display none',
  '-machine q35,kernel-irqchip=on -accel kvm -cpu host',
].flatMap((line) => line.split(' '));

/** The status of QEMU when a guest has written 0 to its exit device (QEMU, hw/misc/debugexit.c). */
const EXITED_WITH_ZERO = 1;

/** Runs firmware until it writes to port 0xf4; returns what it has written to the debug port, 0xe9. */
export function runFirmware(path: string, ramLength: bigint, options: readonly string[]): Uint8Array {
  const devices = ['-debugcon', 'stdio', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'];
  const args = [...MACHINE, '-m', `${ramLength >> 20n}M`, '-bios', path, ...devices, ...options];
  const { status, stdout, error } = spawnSync(QEMU, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  if (status !== EXITED_WITH_ZERO) throw error ?? new Error(`the guest of QEMU ended with status ${status}`);
  return stdout;
}
