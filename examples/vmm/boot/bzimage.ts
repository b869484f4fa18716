/**
 * The file of a Linux kernel for x86 (Linux, Documentation/arch/x86/boot.rst).
 */
import { SetupError } from '../failures.ts';

/** A kernel that has a 64-bit entry point. */
export interface BzImage {
  /** The setup header, which the kernel receives back in its boot parameters. */
  readonly header: Uint8Array;
  /** The code for RAM. */
  readonly code: Uint8Array;
  /** The guest-physical address at which it runs without moving itself. */
  readonly address: bigint;
  /** The bytes of RAM that it requires from there on. */
  readonly size: bigint;
  /** The longest command line, in bytes. */
  readonly maxCommandLine: number;
  /** The last address that an initrd may have. */
  readonly maxInitrdAddress: bigint;
}

/** Offsets in the file. */
const SETUP_HEADER = 0x1f1;
const SETUP_SECTORS = 0x1f1;
const CODE_PARAGRAPHS = 0x1f4;
const HEADER_LENGTH = 0x201;
const MAGIC = 0x202;
const VERSION = 0x206;
const LOAD_FLAGS = 0x211;
const MAX_INITRD_ADDRESS = 0x22c;
const EXTENDED_LOAD_FLAGS = 0x236;
const MAX_COMMAND_LINE = 0x238;
const PREFERRED_ADDRESS = 0x258;
const INIT_SIZE = 0x260;
const SMALLEST_FILE = 0x264;

const SECTOR = 512;
const PARAGRAPH = 16;
/** The number of sectors that 0 means. */
const DEFAULT_SETUP_SECTORS = 4;
/** `HdrS` */
const MAGIC_VALUE = 0x5372_6448;
/** The first version with flags about the 64-bit entry point: Linux 3.8. */
const OLDEST_VERSION = 0x20c;
const LOADED_HIGH = 1;
const HAS_64_BIT_ENTRY = 1;
/** The end of the room for the header in the boot parameters. */
const HEADER_END = 0x290;

/**
 * Reads the header of a kernel.
 *
 * @throws {SetupError} for a file of another kind, a kernel without a 64-bit entry point, and an incomplete file
 */
export function parseBzImage(file: Uint8Array): BzImage {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < SMALLEST_FILE || view.getUint32(MAGIC, true) !== MAGIC_VALUE) {
    throw new SetupError(
      'not a bzImage: it has no Linux setup header. Name the file arch/x86/boot/bzImage of a built kernel',
    );
  }
  const version = view.getUint16(VERSION, true);
  if (version < OLDEST_VERSION) {
    const text = `${version >> 8}.${String(version & 0xff).padStart(2, '0')}`;
    throw new SetupError(`boot protocol ${text} has no 64-bit entry point. Name a kernel from Linux 3.8 on`);
  }
  if ((view.getUint8(LOAD_FLAGS) & LOADED_HIGH) === 0) {
    throw new SetupError('a zImage, which is loaded below 1 MiB. Name a bzImage');
  }
  if ((view.getUint16(EXTENDED_LOAD_FLAGS, true) & HAS_64_BIT_ENTRY) === 0) {
    throw new SetupError('no 64-bit entry point (bit 0 of xloadflags). Name a kernel for x86-64');
  }
  const start = ((view.getUint8(SETUP_SECTORS) || DEFAULT_SETUP_SECTORS) + 1) * SECTOR;
  const length = view.getUint32(CODE_PARAGRAPHS, true) * PARAGRAPH;
  if (file.length < start + length) {
    const lengths = `its header requires ${start + length} bytes, and it has ${file.length}`;
    throw new SetupError(`an incomplete file: ${lengths}. Copy it again`);
  }
  return {
    header: file.subarray(SETUP_HEADER, Math.min(MAGIC + view.getUint8(HEADER_LENGTH), HEADER_END)),
    code: file.subarray(start),
    address: view.getBigUint64(PREFERRED_ADDRESS, true),
    size: BigInt(Math.max(view.getUint32(INIT_SIZE, true), file.length - start)),
    maxCommandLine: view.getUint32(MAX_COMMAND_LINE, true),
    maxInitrdAddress: BigInt(view.getUint32(MAX_INITRD_ADDRESS, true)),
  };
}
