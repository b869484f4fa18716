// A lock between processes.
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TestbedError } from './errors.mjs';

/** The wait after which the caller is notified. */
const PATIENCE_MILLISECONDS = 1000;

/**
 * Runs `use` with a lock held; waits for another holder. A child process holds the lock (flock(1), of Debian's
 * essential util-linux; Node has no such call) while its standard input is open: so the lock is released when this
 * process ends, in any way, and no stale lock remains.
 *
 * @template T
 * @param {string} file the lock file; it remains, empty
 * @param {{ seconds: number, onWait?: () => void }} options `seconds`: the longest wait
 * @param {() => Promise<T>} use
 * @returns {Promise<T>}
 * @throws {TestbedError} if locking fails, or not in time
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
      holder.once('error', (error) => reject(new TestbedError(`locking ${file} failed: ${error.message}`)));
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
