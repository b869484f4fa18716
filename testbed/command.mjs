// The command as the guest runs it: a shell script with one exec of the host's own env, because busybox's env would
// run its own sh and ls.
import { dirname } from 'node:path';

/** Variables of the host that the command receives by default. */
const PASSED_ON = ['CI', 'FORCE_COLOR', 'NO_COLOR'];

/**
 * Quotes a word for a POSIX shell.
 * @param {string} word
 * @returns {string}
 */
export function quote(word) {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * Returns the script that executes the command. Its environment consists of the variables given here and
 * `$testbed_env`, which the guest sets to the devices' addresses.
 *
 * @param {readonly string[]} command program and arguments
 * @param {{ folder: string, kernel: string, image: string, env: Readonly<Record<string, string>> }} options
 * @returns {string}
 */
export function commandScript(command, { folder, kernel, image, env }) {
  const system = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  /** @type {Record<string, string>} */
  const all = {
    PATH: [dirname(process.execPath), ...system].join(':'),
    HOME: '/root',
    LANG: 'C.UTF-8',
    TERM: 'dumb',
    TMPDIR: '/tmp',
    PEERDMA_TESTBED_KERNEL: kernel,
    PEERDMA_TESTBED_IMAGE: image,
    PEERDMA_TESTBED_SHARE: '/mnt/share',
  };
  for (const name of PASSED_ON) {
    const value = process.env[name];
    if (value !== undefined) all[name] = value;
  }
  const words = Object.entries({ ...all, ...env }).map(([name, value]) => `${name}=${value}`);
  return `cd ${quote(folder)} || exit 125\nexec /usr/bin/env -i $testbed_env ${[...words, ...command].map(quote).join(' ')}\n`;
}
