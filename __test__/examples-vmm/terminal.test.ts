/**
 * The terminal of the example VMM: its keys, its output, and its mode after each end of the process.
 */
import test, { type ExecutionContext } from 'ava';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Terminal } from '../../examples/vmm/terminal.ts';
import { until } from '../support/until.ts';

const CTRL_A = '\u0001';
const PROGRAM = fileURLToPath(new URL('./support/terminal-program.ts', import.meta.url));
const NODE = [process.execPath, '--import=./scripts/typescript/register.mjs', PROGRAM] as const;

interface Fixture {
  readonly terminal: Terminal;
  readonly input: PassThrough & { isTTY: boolean };
  readonly output: Writable;
  /** The bytes that the guest has received, `quit`, changes of RAM, and errors of the output. */
  readonly received: string[];
  /** Calls of the output stream, each with all its bytes. */
  readonly written: string[];
  readonly modes: boolean[];
  /** Ends the write that the output has in progress. */
  readonly endWrite: () => void;
}

function fixture(t: ExecutionContext, { isTTY = true } = {}): Fixture {
  const [received, written, modes]: [string[], string[], boolean[]] = [[], [], []];
  const ends: (() => void)[] = [];
  const setRawMode = (isRaw: boolean): void => void modes.push(isRaw);
  const input = Object.assign(new PassThrough(), { isTTY, setRawMode });
  const output = new Writable({
    highWaterMark: 4,
    writev: (chunks, done) => {
      written.push(chunks.map(({ chunk }) => String(chunk)).join(''));
      ends.push(done);
    },
  });
  const receive = (bytes: Uint8Array): void => void received.push(Buffer.from(bytes).toString());
  const quit = (): void => void received.push('quit');
  const resize = (change: string): void => void received.push(change);
  const outputFailed = (error: Error): void => void received.push(error.message);
  const terminal = new Terminal({ input, output, receive, quit, resize, outputFailed });
  t.teardown(() => terminal.close());
  return { terminal, input, output, received, written, modes, endWrite: () => ends.shift()?.() };
}

const keys: [typed: string[], received: string[]][] = [
  [
    ['ls\r', '\u0003'],
    ['ls\r', '\u0003'],
  ],
  [[`${CTRL_A}x`], ['quit']],
  [[CTRL_A, 'x'], ['quit']],
  [[CTRL_A + CTRL_A], [CTRL_A]],
  [
    [`${CTRL_A}+${CTRL_A}`, '-+'],
    ['grow', 'shrink', '+'],
  ],
  [[`${CTRL_A}${CTRL_A}x`], [`${CTRL_A}x`]],
  [[`a${CTRL_A}bx`], ['ax']],
  [
    [`a${CTRL_A}`, 'b', 'x'],
    ['a', 'x'],
  ],
  [[`a${CTRL_A}xb`], ['quit', 'ab']],
  [['x'], ['x']],
];
for (const [typed, expected] of keys) {
  test.serial(`the keys ${JSON.stringify(typed)} arrive as ${JSON.stringify(expected)}`, async (t) => {
    const { input, received } = fixture(t);
    for (const text of typed) {
      input.write(text);
      await turn();
    }
    t.deepEqual(received, expected);
  });
}

test.serial('the bytes of one turn are one write', async (t) => {
  const { terminal, written } = fixture(t);
  terminal.write(Buffer.from('a'));
  terminal.write(Buffer.from('b'));
  await turn();
  terminal.write(Buffer.from('c'));
  t.deepEqual(written, ['ab']);
});

test.serial('a full output has one promise for all its writes, until it is drained', async (t) => {
  const { terminal, written, endWrite, output } = fixture(t);
  t.is(terminal.write(Buffer.from('abc')), undefined);
  const full = terminal.write(Buffer.from('de'));
  t.true(full instanceof Promise);
  t.is(terminal.write(Buffer.from('f')), full);
  await turn();
  t.deepEqual(written, ['abcdef']);
  t.is(output.listenerCount('drain'), 1);
  let isDrained = false;
  void full?.then(() => (isDrained = true));
  await turn();
  t.false(isDrained);
  endWrite();
  await until(() => isDrained, 'the output is drained');
  t.is(terminal.write(Buffer.from('g')), undefined);
  const again = terminal.write(Buffer.from('hijk'));
  t.true(again instanceof Promise);
  t.not(again, full);
});

test.serial('output that fails is reported once, and nothing is written after it', async (t) => {
  const { terminal, output, received, written } = fixture(t);
  const full = terminal.write(Buffer.from('abcde'));
  t.true(full instanceof Promise);
  await turn();
  output.emit('error', new Error('write EPIPE')); // standard output reports each write, and is not destroyed
  output.emit('error', new Error('write EPIPE'));
  t.deepEqual(received, ['write EPIPE']);
  await t.notThrowsAsync(async () => full, 'the guest does not wait any longer');
  t.is(terminal.write(Buffer.from('fghij')), undefined);
  await turn();
  t.deepEqual(written, ['abcde']);
});

test.serial('streams that fail after the terminal is closed do not end the process', (t) => {
  const { terminal, input, output } = fixture(t);
  terminal.close();
  t.true(input.emit('error', new Error('setRawMode EIO')));
  t.true(output.emit('error', new Error('write EPIPE')));
});

test.serial('input that fails is the end of the input', (t) => {
  const { input, received } = fixture(t);
  t.true(input.emit('error', new Error('read EIO')));
  t.deepEqual(received, []);
});

test.serial('a closed terminal has its mode again, and takes no keys', async (t) => {
  const { terminal, input, received, modes } = fixture(t);
  const listeners = process.listenerCount('SIGTERM');
  t.deepEqual(modes, [true]);
  terminal[Symbol.dispose]();
  t.deepEqual(modes, [true, false]);
  t.true(input.isPaused());
  t.is(input.listenerCount('data'), 0);
  t.is(process.listenerCount('SIGTERM'), listeners - 1);
  input.write('a');
  await turn();
  t.deepEqual(received, []);
});

test.serial('a pipe has no mode, and its bytes are keys', async (t) => {
  const { input, received, modes, terminal } = fixture(t, { isTTY: false });
  input.write('a');
  await turn();
  terminal.close();
  t.deepEqual(received, ['a']);
  t.deepEqual(modes, []);
});

for (const isTTY of [false, true]) {
  const name = isTTY ? 'a terminal is read' : 'a pipe is not read';
  test.serial(`${name} while the guest has much input that it does not receive`, async (t) => {
    const resolves: (() => void)[] = [];
    const received: string[] = [];
    const input = Object.assign(new PassThrough(), { isTTY });
    const receive = async (bytes: Uint8Array): Promise<void> => {
      received.push(Buffer.from(bytes).toString());
      await new Promise<void>((resolve) => void resolves.push(resolve));
    };
    const terminal = new Terminal({ input, output: new PassThrough(), receive, quit() {}, outputFailed() {} });
    input.write('a');
    await turn();
    input.write('b');
    await turn();
    t.deepEqual(received, isTTY ? ['a', 'b'] : ['a']);
    resolves.shift()?.();
    await until(() => received.length === 2, 'the input is read again');
    terminal.close();
    for (const resolve of resolves) resolve();
    await turn();
    t.true(input.isPaused());
  });
}

const ends: [way: string, ended: { status?: number; signal?: string }][] = [
  ['close', { status: 0 }],
  ['exit', { status: 3 }],
  ['throw', { status: 1 }],
  ['reject', { status: 1 }],
  ['SIGHUP', { signal: 'SIGHUP' }],
  ['SIGINT', { signal: 'SIGINT' }],
  ['SIGQUIT', { signal: 'SIGQUIT' }],
  ['SIGTERM', { signal: 'SIGTERM' }],
];
for (const [way, ended] of ends) {
  test.serial(`restores the mode when the process ends by ${way}`, (t) => {
    const [node, ...args] = NODE;
    const result = spawnSync(node, [...args, way, 'fake'], { encoding: 'utf8' });
    t.is(result.stdout.trim().split('\n').slice(0, 2).join(), 'raw,restored', result.stderr);
    t.like(result, ended);
  });
}

/** Runs the program on a terminal of `script`, and then prints its status and the mode. */
function onTerminal(t: ExecutionContext, way: string): { program: ChildProcess; text: () => string } {
  const command = `${NODE.map((word) => `'${word}'`).join(' ')} ${way}; echo "status $?"; stty -a`;
  const program = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null']);
  t.teardown(() => program.kill('SIGKILL'));
  let text = '';
  program.stdout.on('data', (bytes: Buffer) => (text += bytes.toString()));
  return { program, text: () => text };
}

test.serial('Ctrl-A x on a terminal ends the program, and the terminal is as before', async (t) => {
  const { program, text } = onTerminal(t, 'wait');
  await until(() => text().includes('raw'), 'the terminal is in raw mode');
  program.stdin?.write('\u0003');
  await until(() => text().includes('received 03'), 'Ctrl-C is a key of the guest');
  program.stdin?.write(`${CTRL_A}x`);
  const [status] = (await once(program, 'close')) as [number];
  t.is(status, 0);
  t.regex(text(), /^raw\r\nreceived 03\r\nquit\r\nstatus 0\r\n/);
  t.regex(text(), / icanon /);
  t.regex(text(), / echo /);
});

/** Node restores the mode after other ends by itself. */
const SIGNALS: [name: NodeJS.Signals, number: number][] = [
  ['SIGHUP', 1],
  ['SIGTERM', 15],
];
for (const [name, number] of SIGNALS) {
  test.serial(`the terminal is as before when ${name} ends the program on it`, async (t) => {
    const { program, text } = onTerminal(t, name);
    await once(program, 'close');
    t.regex(text(), /^raw\r\n/);
    t.regex(text(), new RegExp(`^status ${128 + number}\r$`, 'm'));
    t.regex(text(), / icanon /);
    t.regex(text(), / echo /);
  });
}
