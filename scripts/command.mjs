// Runs other programs.
import { spawn } from 'node:child_process';

/** The top of the checkout. */
export const top = new URL('..', import.meta.url).pathname;

/** Node, running TypeScript as it stands. */
export const NODE_TS = ['--import=@oxc-node/core/register', '--enable-source-maps'];

/** Says what is going on, in a line of its own. */
export function say(line) {
  process.stderr.write(`[peerdma] ${line}\n`);
}

/**
 * Runs a program with this one's terminal.
 *
 * @param {string} program
 * @param {string[]} args
 * @param {{ env?: Record<string, string>, onLine?: (line: string) => void, quiet?: boolean, write?: (chunk: string) => void }}
 *   [options] `onLine` gets each line of its output; `quiet` shows the output only if it fails; `write` gets all that it says,
 *   instead of this terminal
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
