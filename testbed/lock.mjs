// Work that only one process at a time may do.
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TestbedError } from './errors.mjs';

/** How long it may take before whoever waits is told. */
const PATIENCE_MILLISECONDS = 1000;

/**
 * Does something while holding a lock, waiting for whoever holds it. Another process holds it (flock(1), of Debian's
 * essential util-linux; Node has no call for it) for as long as its standard input is open: so the lock goes when this
 * process does, however it goes, and nothing stale is left.
 *
 * @template T
 * @param {string} file the lock; stays behind, empty
 * @param {{ seconds: number, onWait?: () => void }} options `seconds`: the longest wait
 * @param {() => Promise<T>} use
 * @returns {Promise<T>}
 * @throws {TestbedError} when the lock can't be had, or not in time
 */
export async function alone(file, { seconds, onWait }, use) {
  await mkdir(dirname(file), { recursive: true });
  const words = ['-x', '-w', String(seconds), file, 'sh', '-c', 'echo held; read -r _'];
  const holder = spawn('flock', words, { stdio: ['pipe', 'pipe', 'ignore'] });
  const gone = new Promise((resolve) => holder.once('close', resolve));
  const patience = setTimeout(() => onWait?.(), PATIENCE_MILLISECONDS);
  try {
    await new Promise((resolve, reject) => {
      holder.stdout.once('data', resolve);
      holder.once('error', (error) => reject(new TestbedError(`can't lock ${file}: ${error.message}`)));
      holder.once('exit', () => reject(new TestbedError(`${file} was locked by another process for ${seconds} s`)));
    });
    clearTimeout(patience);
    return await use();
  } finally {
    clearTimeout(patience);
    holder.stdin.end();
    if (holder.pid !== undefined) await gone;
  }
}
