// Runs helper programs (apt, dpkg, busybox), each within a time limit.
import { execFile } from 'node:child_process';
import { TestbedError } from './errors.mjs';

/**
 * Runs a program to its end and gives what it wrote to standard output.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ seconds: number, cwd?: string, needs?: string }} options `seconds`: its time limit; `needs`: what to
 *   install where the program is missing
 * @returns {Promise<string>}
 * @throws {TestbedError} when it is missing, fails or overruns; the text carries the end of its standard error
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
