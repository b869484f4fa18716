/**
 * The example VMM in a process, with Linux as its guest.
 */
import type { ExecutionContext } from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { packInitramfs } from '../../../../examples/vmm/testbed/initramfs.ts';
import { COMMAND_LINE, MEMORY } from '../../../../examples/vmm/testbed/programs.ts';

const compiled = (path: string): string =>
  new URL(`../../../../${path}${extname(import.meta.url)}`, import.meta.url).pathname;

/** A guest. */
export interface LinuxGuest {
  /** A shell script, which the first process executes. */
  readonly script: string;
  /** Files in `/`, by their names. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
  /** Arguments of the VMM, such as `--device`. */
  readonly options?: readonly string[];
  /** Called when the guest prints a line `step: NAME`. Its result is the keys that the terminal of the VMM receives. */
  readonly onStep?: (name: string) => Promise<string>;
}

/** The output and the end of the VMM. */
export interface LinuxRun {
  readonly console: string;
  readonly status: number | null;
  /** The standard error of the VMM. */
  readonly errors: string;
  /**
   * Events of the VMM's event loop until each {@link MARK}. A mark takes the same number of events each time, but for a
   * few.
   */
  readonly events: readonly number[];
}

/** A command of the script: the VMM prints the number of its events, then the script goes on. */
export const MARK = 'echo mark; read line';

/** Boots Linux by the VMM. */
export async function runLinux(
  t: ExecutionContext,
  { script, files = {}, options = [], onStep }: LinuxGuest,
): Promise<LinuxRun> {
  const folder = mkdtempSync(join(tmpdir(), 'linux-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, packInitramfs({ script, files }));
  const kernel = process.env['PEERDMA_TESTBED_IMAGE'] ?? '';
  const memory = `${MEMORY >> 20n}M`;
  const machine = ['--kernel', kernel, '--initrd', initrd, '--append', COMMAND_LINE, '--memory', memory, ...options];
  const node = ['--import', compiled('__test__/vfio/programs/count-events'), compiled('examples/vmm/main')];
  const child = spawn(process.execPath, [...node, ...machine], { stdio: ['pipe', 'pipe', 'pipe'] });
  let [console, errors, marks, steps] = ['', '', 0, 0];
  child.stdout.on('data', (bytes: Buffer) => {
    console += bytes.toString('latin1');
    const reached = [...console.matchAll(/^step: (.*)\r$/gm)].map(([, name = '']) => name);
    for (const name of reached.slice(steps)) void onStep?.(name).then((keys) => child.stdin.write(keys));
    steps = reached.length;
    if (console.split('\nmark\r').length - 1 === marks) return;
    marks++;
    child.kill('SIGUSR2');
  });
  child.stderr.on('data', (bytes: Buffer) => {
    errors += bytes.toString('latin1');
    if (bytes.toString('latin1').includes('events: ')) child.stdin.write('\n');
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return {
    console,
    status,
    errors,
    events: [...errors.matchAll(/^events: (\d+)/gm)].map(([, count]) => Number(count)),
  };
}

/** Returns what the script printed as `LABEL: VALUE`, once for each time. */
export function valuesOf({ console }: LinuxRun, label: string): string[] {
  return [...console.matchAll(/^(.*?): (.*?)\r?$/gm)].flatMap(([, name, value = '']) =>
    name === label ? [value] : [],
  );
}
