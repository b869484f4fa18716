// Finds and runs helper programs (apt, dpkg, busybox, make), each with a time limit.
import { execFile, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lastLines } from './console.mjs';
import { TestbedError } from './errors.mjs';

/** The number of log lines shown for a failed program. */
const TAIL_LINES = 15;

/**
 * Finds a program on the PATH, or in /usr/bin.
 * @param {string} name
 * @returns {string | undefined} its path
 */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? '').split(':').concat('/usr/bin')) {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return join(folder, name);
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * Runs a program to its end and returns its standard output.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ seconds: number, cwd?: string, needs?: string }} options `seconds`: its time limit; `needs`: the command
 *   that installs a missing program
 * @returns {Promise<string>}
 * @throws {TestbedError} if the program is missing, fails or exceeds its time; the message has the end of its
 *   standard error
 */
export function capture(program, args, { seconds, cwd, needs }) {
  return new Promise((resolve, reject) => {
    const options = {
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...process.env, LC_ALL: 'C.UTF-8' },
      killSignal: /** @type {const} */ ('SIGKILL'),
      maxBuffer: 64 << 20,
      timeout: seconds * 1000,
    };
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const { code } = /** @type {NodeJS.ErrnoException} */ (error);
      const missing = /** @type {unknown} */ (code) === 'ENOENT';
      const why = missing
        ? `not found${needs === undefined ? '' : `: ${needs}`}`
        : error.killed
          ? `not done after ${seconds} s`
          : `failed with ${code ?? error.signal ?? error.message}`;
      const tail = stderr.trim().split('\n').slice(-8).join('\n');
      reject(new TestbedError(`${program} ${args.at(-1) ?? ''}: ${why}${tail === '' ? '' : `\n${tail}`}`));
    });
    child.stdin?.end();
  });
}

/**
 * Runs a program to its end, and appends its output to a log. It does not outlive this process.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ seconds: number, cwd: string, env: Readonly<Record<string, string>>, log: string, signal: AbortSignal }}
 *   options `seconds`: its time limit; `env`: its whole environment; `signal`: ends it
 * @throws {TestbedError} if it is missing, fails, exceeds its time or is ended; the message has the log's end and
 *   path
 */
export async function logged(program, args, { seconds, cwd, env, log, signal }) {
  const written = openSync(log, 'a');
  /** @type {string | undefined} the reason of the failure */
  let why;
  try {
    why = await new Promise((resolve) => {
      // SIGTERM, so that make can end its child processes.
      const child = spawn('setpriv', ['--pdeathsig', 'TERM', program, ...args], {
        cwd,
        env,
        stdio: ['ignore', written, written],
      });
      const end = () => void child.kill('SIGTERM');
      const timer = setTimeout(end, seconds * 1000);
      signal.addEventListener('abort', end);
      if (signal.aborted) end();
      const done = (/** @type {string | undefined} */ outcome) => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        resolve(signal.aborted ? 'interrupted' : outcome);
      };
      const begun = performance.now();
      child.once('error', (error) => done(error.message));
      child.once('exit', (code, by) => {
        if (code === 0) return done(undefined);
        const overran = performance.now() - begun >= seconds * 1000;
        done(overran ? `not done after ${seconds} s` : `failed with ${code ?? by}`);
      });
    });
  } finally {
    closeSync(written);
  }
  if (why === undefined) return;
  const tail = lastLines(await readFile(log, 'utf8'), TAIL_LINES);
  throw new TestbedError(`${program} ${args.join(' ')}: ${why}; the end of ${log}:\n${tail}`);
}
