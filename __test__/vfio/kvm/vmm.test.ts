/**
 * The example VMM as a program, with a kernel of a few instructions: its console and its ends.
 */
import test, { type ExecutionContext } from 'ava';
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT } from '../../../examples/vmm/devices/power.ts';
import { SERIAL_PORT } from '../../../examples/vmm/devices/serial.ts';
import { readJournal } from '../../../ts/inspect.ts';
import { CODE_START, fakeBzImage } from '../../examples-vmm/support/bzimage.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { until } from '../../support/until.ts';
import { Code } from './support/machine-code.ts';

const VMM = new URL(`../../../examples/vmm/main${extname(import.meta.url)}`, import.meta.url).pathname;
/** The 64-bit entry point, from the start of the kernel's code. */
const ENTRY_OFFSET = 0x200;
/** Sleep type 5, and the bit that enters the sleep. */
const POWER_OFF = 0x34n;
const LINE_STATUS = SERIAL_PORT + 5;

interface Vmm {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly output: { console: string; errors: string };
  /** Waits for the end: its status, or a signal. */
  readonly ended: Promise<number | string>;
}

/** Starts the VMM with some code as its kernel. */
function start(t: ExecutionContext, code: Code, ...options: string[]): Vmm {
  const kernel = join(scratchFolder(t), 'bzImage');
  const file = fakeBzImage();
  file.set(code.bytes(), CODE_START + ENTRY_OFFSET);
  writeFileSync(kernel, file);
  const args = [...process.execArgv, VMM, '--kernel', kernel, '--memory', '32M', ...options];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  const output = { console: '', errors: '' };
  child.stdout.on('data', (bytes: Buffer) => (output.console += bytes.toString('latin1')));
  child.stderr.on('data', (bytes: Buffer) => (output.errors += bytes.toString('latin1')));
  const ended = once(child, 'close').then(([status, signal]) => (status ?? signal) as number | string);
  return { child, output, ended };
}

const stopped = (reason: string): string => `\r\nvmm: the guest stopped: ${reason}\n`;

/** Places BAR 0 of 00:01.0, after a key, and powers off. The BAR is a change of guest memory. */
function placingBar(): Code {
  const code = new Code().outString(SERIAL_PORT, 'ready');
  const wait = code.length;
  code.rax(0n).in(LINE_STATUS).raw(0x83, 0xe0, 0x01).jumpIfZero(wait); // and eax, 1
  const write = (register: bigint, value: bigint): void =>
    void code
      .rax(0x8000_0800n | register)
      .out(0xcf8, 4)
      .rax(value)
      .out(0xcfc, 4);
  write(0x10n, 0xc000_0000n);
  write(0x04n, 0x0002n); // memory decode
  return code.rax(POWER_OFF).out(SLEEP_CONTROL_PORT).halt();
}

test.serial('the VMM prints the console of its guest, records its changes, and ends with 0 at power-off', async (t) => {
  const journal = join(scratchFolder(t), 'journal');
  const options = ['--cpus', '2', '--simulated', 'edu', '--simulated', 'memory', '--journal', journal];
  const { child, output, ended } = start(t, placingBar(), ...options);
  child.stdin.write('x');
  t.is(await ended, 0, output.errors);
  t.deepEqual(output, { console: 'ready', errors: stopped('shutdown') });
  const texts = Array.from(readJournal(readFileSync(journal, 'utf8')), ({ text }) => text);
  t.true(
    texts.some((text) => /^BAR 0 of .* is decoded at 0xc0000000/.test(text)),
    texts.join('\n'),
  );
});

test.serial('the VMM ends with status 1 when its journal fails', async (t) => {
  const pipe = join(scratchFolder(t), 'pipe');
  t.is(spawnSync('mkfifo', [pipe]).status, 0);
  const reader = spawn('cat', [pipe], { stdio: 'ignore' });
  const { child, output, ended } = start(t, placingBar(), '--simulated', 'edu', '--journal', pipe);
  await until(() => output.console === 'ready', 'the guest runs');
  reader.kill();
  await once(reader, 'exit');
  child.stdin.write('x');
  t.is(await ended, 1);
  t.regex(output.errors, /^vmm: ERR_SYSTEM: the journal: write failed: EPIPE/);
});

test.serial('the VMM ends with status 1 when its guest resets', async (t) => {
  const { output, ended } = start(t, new Code().rax(BigInt(RESET_VALUE)).out(RESET_PORT).halt());
  t.is(await ended, 1);
  t.is(output.errors, stopped('reset'));
});

test.serial('keys go to the guest of the VMM, and Ctrl-A x ends it with status 0', async (t) => {
  const echo = new Code().rax(0n).in(LINE_STATUS).raw(0x83, 0xe0, 0x01).jumpIfZero(0); // and eax, 1
  const { child, output, ended } = start(t, echo.in(SERIAL_PORT).out(SERIAL_PORT).jump(0));
  child.stdin.write('typed');
  await until(() => output.console === 'typed', 'the keys come back');
  child.stdin.write('\u0001x');
  t.is(await ended, 0);
  t.is(output.errors, stopped('quit'));
});

test.serial('the VMM ends with status 1 when the reader of its console ends', async (t) => {
  const { child, output, ended } = start(t, new Code().outString(SERIAL_PORT, 'text ').jump(0));
  await until(() => output.console.length > 0, 'the guest prints');
  child.stdout.destroy();
  t.is(await ended, 1);
  t.is(output.errors, stopped('standard output: write EPIPE'));
});
