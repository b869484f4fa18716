/**
 * The VMM inside the testbed: real KVM and real VFIO under emulation, without privileges.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Runs a guest with the testbed's own kernel and two assigned devices. Returns the exit status. */
export async function runInTestbed(): Promise<number> {
  const child = spawn(process.execPath, ['scripts/run.mjs', 'vmm:testbed'], { stdio: 'inherit' });
  const [status] = (await once(child, 'exit')) as [number | null];
  return status ?? 1;
}
