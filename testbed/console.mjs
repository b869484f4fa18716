// Reading a guest's console: its end, and whether the kernel got hurt.
import { readFile } from 'node:fs/promises';

/** The kernel went on in a state that proves nothing any more, or stopped. */
const FATAL =
  /\bOops: |\bBUG: (?!.*(?:soft lockup|workqueue lockup))|kernel BUG at|Kernel panic - not syncing|general protection fault/;
/** Worth a look; on a loaded machine an emulated processor can stand still long enough for these. */
const SUSPECT = /\bWARNING: |soft lockup|workqueue lockup|rcu.*stall|blocked for more than \d+ seconds/;

/**
 * What a kernel log says went wrong.
 *
 * @param {string} log
 * @returns {{ fatal: string[], suspect: string[] }} the lines, each once
 */
export function findings(log) {
  const lines = [...new Set(log.split('\n').map((line) => line.replaceAll('\r', '').trim()))];
  return {
    fatal: lines.filter((line) => FATAL.test(line)),
    suspect: lines.filter((line) => SUSPECT.test(line) && !FATAL.test(line)),
  };
}

/**
 * The last lines of a text, without a terminal's control sequences (the firmware clears its screen).
 *
 * @param {string} text
 * @param {number} count
 * @returns {string}
 */
export function lastLines(text, count) {
  // oxlint-disable-next-line no-control-regex -- control characters are what it is about
  const plain = text.replace(/\x1b(?:\[[0-9;?=]*[a-zA-Z]|c)|\r/g, '');
  return plain.trimEnd().split('\n').slice(-count).join('\n');
}

/**
 * A file's text, empty where there is none.
 * @param {string} path
 * @returns {Promise<string>}
 */
export async function textOf(path) {
  return readFile(path, 'utf8').catch(() => '');
}
