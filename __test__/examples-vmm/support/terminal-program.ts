/**
 * A VMM's terminal that a test ends in one way: `terminal-program.ts WAY [fake]`.
 *
 * It prints the mode while it runs. With `fake`, the input is a stream that prints changes of its mode instead.
 */
import { execFileSync } from 'node:child_process';
import { writeSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { Terminal } from '../../../examples/vmm/terminal.ts';

const [way = '', kind] = process.argv.slice(2);
const print = (text: string): void => void writeSync(1, `${text}\n`); // also while the process ends

const fake = Object.assign(new PassThrough(), {
  isTTY: true,
  setRawMode: (isRaw: boolean) => print(isRaw ? 'raw' : 'restored'),
});
const terminal = new Terminal({
  ...(kind === 'fake' ? { input: fake } : {}),
  receive: (bytes) => print(`received ${Buffer.from(bytes).toString('hex')}`),
  quit: () => {
    print('quit');
    terminal.close();
  },
  outputFailed: () => print('failed'),
});
if (kind !== 'fake') {
  const mode = execFileSync('stty', ['-a'], { stdio: ['inherit', 'pipe', 'inherit'], encoding: 'utf8' });
  print(mode.includes('-icanon') ? 'raw' : 'not raw');
}

if (way.startsWith('SIG')) {
  setInterval(() => {}, 1000); // a signal alone does not keep the process alive
  process.kill(process.pid, way as NodeJS.Signals);
} else if (way === 'exit') process.exit(3);
else if (way === 'close') terminal.close();
else if (way === 'throw') setImmediate(() => fail());
else if (way === 'reject') void Promise.reject(new Error('rejected'));

function fail(): never {
  throw new Error('thrown');
}
