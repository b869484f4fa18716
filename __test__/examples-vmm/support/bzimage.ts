/**
 * A file with the setup header of a Linux kernel (Linux, Documentation/arch/x86/boot.rst).
 */

/** Where the fake kernel runs, and how much RAM it requires there. */
export const KERNEL = { address: 0x100_0000n, size: 0x20_0000n };
/** The longest command line that it accepts, and the last address that it accepts for an initrd. */
export const MAX_COMMAND_LINE = 2047;
export const MAX_INITRD_ADDRESS = 0x7fff_ffff;

const SETUP_SECTORS = 2;
export const CODE_START: number = (SETUP_SECTORS + 1) * 512;
const CODE_LENGTH = 0x1000;

/** Values of fields, by offset in the file. */
export interface HeaderFields {
  readonly [offset: number]: readonly [bytes: 1 | 2 | 4 | 8, value: number | bigint];
}

/** Returns a kernel of protocol 2.15, with other values in some fields. Its code is a pattern. */
export function fakeBzImage(changes: HeaderFields = {}): Uint8Array {
  const file = new Uint8Array(CODE_START + CODE_LENGTH);
  file.fill(0xee, 0, 0x1f1); // what a loader must not take over
  const fields: HeaderFields = {
    0x1f1: [1, SETUP_SECTORS],
    0x1f4: [4, CODE_LENGTH / 16],
    0x200: [2, 0x6aeb], // a jump to the end of the header, 0x26c
    0x202: [4, 0x5372_6448],
    0x206: [2, 0x20f],
    0x211: [1, 1],
    0x22c: [4, MAX_INITRD_ADDRESS],
    0x236: [2, 0x3],
    0x238: [4, MAX_COMMAND_LINE],
    0x250: [8, 0n],
    0x258: [8, KERNEL.address],
    0x260: [4, Number(KERNEL.size)],
    0x268: [4, 0x1234_5678],
    0x26c: [4, 0xeeee_eeee],
    ...changes,
  };
  const view = new DataView(file.buffer);
  for (const [offset, [bytes, value]] of Object.entries(fields)) {
    for (let at = 0; at < bytes; at++)
      view.setUint8(Number(offset) + at, Number((BigInt(value) >> BigInt(8 * at)) & 0xffn));
  }
  for (let at = CODE_START; at < file.length; at++) file[at] = at % 251;
  return file;
}
