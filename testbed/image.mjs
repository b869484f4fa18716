// Checks the image of a kernel.
import { open } from 'node:fs/promises';

/** Offsets of the boot protocol (Linux, Documentation/arch/x86/boot.rst). */
const HEADER = { sectors: 0x1f1, magic: 0x202, version: 0x20e, size: 0x1f4 };
const SECTOR = 512;
/** The unit of `syssize`. */
const PARAGRAPH = 16;
/** Long enough for the setup code of any kernel. */
const START = 64 << 10;

/**
 * Returns the problem of a kernel image: it is missing, truncated, or of another version.
 *
 * @param {string} path
 * @param {string} series the first parts of the version: `6.12`
 * @returns {Promise<string | undefined>} undefined for an image without a problem
 */
export async function imageProblem(path, series) {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return `${path} does not exist`;
  try {
    const start = Buffer.alloc(START);
    await file.read(start, 0, START, 0);
    if (start.toString('latin1', HEADER.magic, HEADER.magic + 4) !== 'HdrS') return `${path} is not a kernel`;
    const sectors = start.readUInt8(HEADER.sectors) || 4;
    const length = (sectors + 1) * SECTOR + start.readUInt32LE(HEADER.size) * PARAGRAPH;
    const { size } = await file.stat();
    if (size < length) return `${path} has ${size} bytes instead of ${length}`;
    const at = start.readUInt16LE(HEADER.version) + SECTOR;
    const version = start.toString('latin1', at, start.indexOf(0, at));
    return version.startsWith(`${series}.`) ? undefined : `${path} is Linux ${version}`;
  } finally {
    await file.close();
  }
}
