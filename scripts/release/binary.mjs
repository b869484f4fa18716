// Checks that a binary fits the platform of its package.
import { readSharedObject } from './elf.mjs';

/** The newest glibc that a binary may need: that of RHEL 8 and Debian 10. The binaries of Node need it too. */
export const GLIBC_FLOOR = '2.28';

/**
 * Symbols that are newer than the C library of the toolchain, with the glibc that introduced them. A binary refers to
 * them without a version.
 */
const LATER_SYMBOLS = { memfd_create: '2.27' };

/**
 * Checks a binary.
 *
 * @param {string} path of the binary
 * @param {import("./platforms.mjs").Platform} platform
 * @returns {string[]} the problems; none for a valid binary
 */
export function binaryProblems(path, { manifest }) {
  let object;
  try {
    object = readSharedObject(path);
  } catch (error) {
    return [error.message];
  }
  const problems = [];
  if (!manifest.cpu.includes(object.machine)) problems.push(`it is for ${object.machine}`);
  const glibc = object.libraries.includes('libc.so.6');
  if (manifest.libc.includes('glibc') !== glibc) problems.push(`it is ${glibc ? '' : 'not '}linked with glibc`);
  if (!glibc) return problems;
  const newest = newestGlibc(object);
  if (compareVersions(newest, GLIBC_FLOOR) > 0) problems.push(`it needs glibc ${newest}, and may need ${GLIBC_FLOOR}`);
  const unknown = object.unversioned.filter((symbol) => !Object.hasOwn(LATER_SYMBOLS, symbol));
  if (unknown.length > 0) problems.push(`it needs ${unknown.join(', ')} without a version`);
  return problems;
}

/** Returns the oldest glibc that can load a binary. */
export function newestGlibc({ versions, unversioned }) {
  const recorded = versions.filter((name) => /^GLIBC_[0-9.]+$/.test(name)).map((name) => name.slice('GLIBC_'.length));
  const unrecorded = unversioned.flatMap((symbol) => LATER_SYMBOLS[symbol] ?? []);
  return [...recorded, ...unrecorded].sort(compareVersions).at(-1) ?? '0';
}

/** Compares versions of glibc by their numbers: 2.4 is older than 2.28. */
function compareVersions(a, b) {
  const [first, second] = [a, b].map((version) => version.split('.').map(Number));
  for (let index = 0; index < Math.max(first.length, second.length); index++) {
    const difference = (first[index] ?? 0) - (second[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
