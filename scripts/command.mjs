// Runs other programs.
import { spawn } from 'node:child_process';

/** The top of the checkout. */
export const top = new URL('..', import.meta.url).pathname;

/** Options of Node for running TypeScript. */
export const NODE_TS = ['--import=./scripts/typescript/register.mjs', '--enable-source-maps'];

/** Prints a progress message in a line. */
export function say(line) {
  process.stderr.write(`[peerdma] ${line}\n`);
}

/**
 * Runs a program with the terminal of this one.
 *
 * @param {string} program
 * @param {string[]} args
 * @param {object} [options]
 * @param {Record<string, string>} [options.env] environment variables to add
 * @param {(line: string) => void} [options.onLine] receives each line of the output
 * @param {boolean} [options.quiet] prints the output only if the program fails
 * @param {(chunk: string) => void} [options.write] receives the output, which is not printed then
 * @returns {Promise<number>} its exit status
 */
export function run(program, args, options = {}) {
  const { env = {}, onLine, quiet = false, write } = options;
  const piped = onLine !== undefined || quiet;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: top,
      env: { ...process.env, ...env },
      stdio: ['inherit', piped ? 'pipe' : 'inherit', quiet || write !== undefined ? 'pipe' : 'inherit'],
    });
    const kept = [];
    let rest = '';
    const take = (chunk) => {
      if (quiet) kept.push(chunk);
      else if (write !== undefined) write(chunk);
      else process.stdout.write(chunk);
      if (onLine === undefined) return;
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    };
    child.stdout?.setEncoding('utf8').on('data', take);
    child.stderr?.setEncoding('utf8').on('data', write ?? ((chunk) => kept.push(chunk)));
    child.on('error', (error) => reject(missing(program, error)));
    child.on('close', (status, signal) => {
      if (rest !== '') onLine?.(rest);
      if (quiet && status !== 0) process.stderr.write(kept.join(''));
      resolve(status ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}

function missing(program, error) {
  if (error.code !== 'ENOENT') return error;
  const advice = program === 'cargo' ? ': install Rust 1.88 or later (https://rustup.rs)' : '';
  return new Error(`${program} is not installed${advice}`);
}
