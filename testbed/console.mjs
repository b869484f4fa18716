// Reads a guest's console: its last lines, and the kernel's error messages.
import { readFile } from 'node:fs/promises';

/** The kernel stopped, or continued in a state in which no result is reliable. */
const FATAL =
  /\bOops: |\bBUG: (?!.*(?:soft lockup|workqueue lockup))|kernel BUG at|Kernel panic - not syncing|general protection fault/;
/** Worth a notice; on a loaded machine an emulated processor can pause long enough for these. */
const SUSPECT = /\bWARNING: |soft lockup|workqueue lockup|rcu.*stall|blocked for more than \d+ seconds/;

/**
 * Finds the problems in a kernel log.
 *
 * @param {string} log
 * @returns {{ fatal: string[], suspect: string[] }} the lines, without duplicates
 */
export function findings(log) {
  const lines = [...new Set(log.split('\n').map((line) => line.replaceAll('\r', '').trim()))];
  return {
    fatal: lines.filter((line) => FATAL.test(line)),
    suspect: lines.filter((line) => SUSPECT.test(line) && !FATAL.test(line)),
  };
}

/**
 * Returns the last lines of a text, without control sequences. The firmware clears its screen with them.
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
 * Returns a file's text, or an empty string if it does not exist.
 * @param {string} path
 * @returns {Promise<string>}
 */
export async function textOf(path) {
  return readFile(path, 'utf8').catch(() => '');
}
