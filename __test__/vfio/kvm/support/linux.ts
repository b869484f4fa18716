/**
 * The example VMM in a process, with Linux as its guest.
 */
import type { ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { initramfs } from './initramfs.ts';

const VMM = new URL(`../../../../examples/vmm/main${extname(import.meta.url)}`, import.meta.url);
/** `mem`: Linux uses less RAM than there is. The rest is for DMA of the script. `quiet`: the console is slow. */
const COMMAND_LINE = 'console=ttyS0 panic=-1 nokaslr tsc=reliable quiet mem=255M';

/** RAM that Linux does not use. */
export const FREE_RAM = 255n << 20n;

/** The output and the end of the VMM. */
export interface LinuxRun {
  readonly console: string;
  readonly status: number | null;
  /** The standard error of the VMM. */
  readonly errors: string;
}

/** An access during the delivery of an interrupt (`KVM_INTERNAL_ERROR_DELIVERY_EV`). */
const DELIVERY_EVENT = /internal error 3/;
const ATTEMPTS = 3;

/**
 * Boots Linux by the VMM, and runs a shell script in it.
 *
 * QEMU's emulation of SVM sometimes reports an interrupt as being delivered when it has been. KVM cannot continue after
 * an access to memory without a slot then, so the run is repeated.
 *
 * @param options of the VMM, such as `--device`
 */
export async function runLinux(t: ExecutionContext, script: string, ...options: string[]): Promise<LinuxRun> {
  for (let attempt = 1; ; attempt++) {
    const run = await runOnce(t, script, options);
    if (attempt === ATTEMPTS || !DELIVERY_EVENT.test(run.errors)) return run;
    t.log(`attempt ${attempt}: ${run.errors}`);
  }
}

async function runOnce(t: ExecutionContext, script: string, options: readonly string[]): Promise<LinuxRun> {
  const folder = mkdtempSync(join(tmpdir(), 'linux-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, initramfs(script));
  const kernel = process.env['PEERDMA_TESTBED_IMAGE'] ?? '';
  const machine = ['--kernel', kernel, '--initrd', initrd, '--append', COMMAND_LINE, '--memory', '256M'];
  const child = spawn(process.execPath, [VMM.pathname, ...machine, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [console, errors] = ['', ''];
  child.stdout.on('data', (bytes: Buffer) => (console += bytes.toString('latin1')));
  child.stderr.on('data', (bytes: Buffer) => (errors += bytes.toString('latin1')));
  const [status] = (await once(child, 'exit')) as [number | null];
  return { console, status, errors };
}

/** Returns what the script printed as `NAME=VALUE`. */
export function valueOf({ console }: LinuxRun, name: string): string | undefined {
  return new RegExp(`^${name}=(.*?)\\r?$`, 'm').exec(console)?.[1];
}
