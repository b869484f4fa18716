// Reads the requirements of a shared object with `readelf` of binutils: machine, libraries and symbol versions.
import { spawnSync } from 'node:child_process';

/** The machines of the platforms, as readelf names them. */
const MACHINES = { 'Advanced Micro Devices X86-64': 'x64', AArch64: 'arm64' };
const LITTLE_ENDIAN = "2's complement, little endian";

/**
 * @typedef {object} SharedObject
 * @property {string} machine `x64`, `arm64`, or the name of another machine
 * @property {string[]} libraries libraries that it needs
 * @property {string[]} versions symbol versions that it needs, such as `GLIBC_2.17`
 * @property {string[]} unversioned symbols that it needs without a version, except weak ones
 */

/**
 * Reads a little-endian 64-bit shared object.
 *
 * @param {string} path of the file
 * @returns {SharedObject}
 * @throws {Error} when the file is not a shared object, or is truncated
 */
export function readSharedObject(path) {
  const { error, stderr, stdout } = spawnSync('readelf', ['-W', '-h', '-d', '-V', '--dyn-syms', path], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  });
  if (error !== undefined) {
    const remedy = error.code === 'ENOENT' ? '. Install binutils.' : '';
    throw new Error(`readelf: ${error.message}${remedy}`, { cause: error });
  }
  const all = (pattern) => [...stdout.matchAll(pattern)].map(([, found]) => found);
  const header = (field) => all(new RegExp(`^ +${field}: +(.+)$`, 'gm'))[0] ?? '';
  if (stdout.trim() === '' && stderr !== '') throw new Error(`not an ELF file of 64 bits: ${stderr.trim()}`);
  if (header('Class') !== 'ELF64' || header('Data') !== LITTLE_ENDIAN) throw new Error('not an ELF file of 64 bits');
  // readelf ends with 0 after errors, too.
  if (stderr !== '') throw new Error(`not a complete ELF file: ${stderr.split('\n', 1)[0]}`);
  if (!header('Type').startsWith('DYN ')) throw new Error('not a shared object');
  if (!stdout.includes("\nSymbol table '.dynsym'")) throw new Error('no dynamic symbols');
  return {
    machine: MACHINES[header('Machine')] ?? header('Machine'),
    libraries: all(/ \(NEEDED\) +Shared library: \[(.*)\]$/gm),
    versions: all(/^ +0x[0-9a-f]+: +Name: (\S+) +Flags: .* Version: \d+$/gm),
    unversioned: all(/^ +\d+: .* GLOBAL +\w+ +(?:\[[^\]]*\] +)?UND ([^\s@]+)$/gm),
  };
}
