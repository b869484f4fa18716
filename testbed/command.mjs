// The command as the guest runs it: a shell script of one exec, of the host's own env: busybox's would take its own sh and ls for
// the command's.
import { dirname } from 'node:path';

/** Variables of the host that the command gets unasked. */
const PASSED_ON = ['CI', 'FORCE_COLOR', 'NO_COLOR'];

/**
 * A word as a POSIX shell reads it back unchanged.
 * @param {string} word
 * @returns {string}
 */
export function quote(word) {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * The script that becomes the command. Its environment is what stands here, and `$testbed_env`, which the guest fills
 * with the devices' addresses.
 *
 * @param {readonly string[]} command program and arguments
 * @param {{ folder: string, kernel: string, env: Readonly<Record<string, string>> }} options
 * @returns {string}
 */
export function commandScript(command, { folder, kernel, env }) {
  const system = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  /** @type {Record<string, string>} */
  const all = {
    PATH: [dirname(process.execPath), ...system].join(':'),
    HOME: '/root',
    LANG: 'C.UTF-8',
    TERM: 'dumb',
    TMPDIR: '/tmp',
    PEERDMA_TESTBED_KERNEL: kernel,
    PEERDMA_TESTBED_SHARE: '/mnt/share',
  };
  for (const name of PASSED_ON) {
    const value = process.env[name];
    if (value !== undefined) all[name] = value;
  }
  const words = Object.entries({ ...all, ...env }).map(([name, value]) => `${name}=${value}`);
  return `cd ${quote(folder)} || exit 125\nexec /usr/bin/env -i $testbed_env ${[...words, ...command].map(quote).join(' ')}\n`;
}
