// Reads the requirements of a shared object from its ELF headers: machine, libraries and symbol versions.
// Layouts: elf.h of glibc; symbol versions: "ELF Symbol Versioning", Linux Standard Base, 10.7.

const SECTION = { dynamic: 6, dynamicSymbols: 11, versionNeeds: 0x6ffffffe, symbolVersions: 0x6fffffff };
const MACHINES = new Map([
  [62, 'x64'],
  [183, 'arm64'],
]);
const SHARED_OBJECT = 3;
const DT_NEEDED = 1n;
const WEAK = 2;
/** The first symbol version of a library. 0 and 1 mean no version. */
const FIRST_VERSION = 2;

/**
 * @typedef {object} SharedObject
 * @property {string} machine `x64`, `arm64`, or the number of the machine in ELF
 * @property {string[]} libraries libraries that it needs
 * @property {string[]} versions symbol versions that it needs, such as `GLIBC_2.17`
 * @property {string[]} unversioned symbols that it needs without a version
 */

/**
 * Reads a little-endian 64-bit shared object.
 *
 * @param {Uint8Array} bytes contents of the file
 * @returns {SharedObject}
 * @throws {Error} when the file is not a shared object, or is truncated
 */
export function readSharedObject(bytes) {
  try {
    return read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    if (error instanceof RangeError) throw new Error('no complete ELF file', { cause: error });
    throw error;
  }
}

/** @param {DataView} file */
function read(file) {
  // 0x7f "ELF", 64 bits, little-endian
  if (file.getUint32(0) !== 0x7f454c46 || file.getUint16(4) !== 0x0201) throw new Error('no ELF file of 64 bits');
  if (file.getUint16(16, true) !== SHARED_OBJECT) throw new Error('no shared object');
  const machine = file.getUint16(18, true);
  const sections = sectionsOf(file);
  const of = (type) => sections.find((section) => section.type === type);
  const strings = (section) => sections[section.link] ?? { offset: file.byteLength };
  const dynamic = of(SECTION.dynamic);
  const symbols = of(SECTION.dynamicSymbols);
  if (dynamic === undefined || symbols === undefined) throw new Error('no dynamic section, or no dynamic symbols');
  return {
    machine: MACHINES.get(machine) ?? String(machine),
    libraries: entries(dynamic, 16)
      .filter((at) => file.getBigUint64(at, true) === DT_NEEDED)
      .map((at) => text(file, strings(dynamic).offset + Number(file.getBigUint64(at + 8, true)))),
    versions: versionsOf(file, of(SECTION.versionNeeds), strings),
    unversioned: entries(symbols, 24)
      .filter((at, index) => index > 0 && needsNoVersion(file, at, index, of(SECTION.symbolVersions)))
      .map((at) => text(file, strings(symbols).offset + file.getUint32(at, true))),
  };
}

function sectionsOf(file) {
  const table = { offset: Number(file.getBigUint64(40, true)), size: file.getUint16(60, true) * 64 };
  return entries(table, 64).map((at) => ({
    type: file.getUint32(at + 4, true),
    offset: Number(file.getBigUint64(at + 24, true)),
    size: Number(file.getBigUint64(at + 32, true)),
    link: file.getUint32(at + 40, true),
    count: file.getUint32(at + 44, true),
  }));
}

/** Returns the offsets of the entries of a table. */
function entries({ offset, size }, each) {
  return Array.from({ length: Math.floor(size / each) }, (_, index) => offset + index * each);
}

/** Reads the versions from a list of libraries, each with a list of versions. Relative offsets link both lists. */
function versionsOf(file, section, strings) {
  if (section === undefined) return [];
  const found = [];
  for (let left = section.count, at = section.offset; left > 0; left--, at += file.getUint32(at + 12, true)) {
    let version = at + file.getUint32(at + 8, true);
    for (let more = file.getUint16(at + 2, true); more > 0; more--, version += file.getUint32(version + 12, true)) {
      found.push(text(file, strings(section).offset + file.getUint32(version + 8, true)));
    }
  }
  return found;
}

function needsNoVersion(file, at, index, versions) {
  const undefinedHere = file.getUint16(at + 6, true) === 0;
  if (!undefinedHere || file.getUint8(at + 4) >> 4 === WEAK) return false;
  return versions === undefined || (file.getUint16(versions.offset + index * 2, true) & 0x7fff) < FIRST_VERSION;
}

function text(file, from) {
  let to = from;
  while (file.getUint8(to) !== 0) to++;
  return Buffer.from(file.buffer, file.byteOffset + from, to - from).toString('latin1');
}
