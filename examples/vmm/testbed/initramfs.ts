/**
 * An initial RAM file system for a guest that runs a script: busybox, the script and files.
 */
import { readFileSync } from 'node:fs';

/** The static busybox of the testbed. */
const BUSYBOX = '/run/testbed/bin/busybox';
const FOLDER = 0o040755;
const PROGRAM = 0o100755;
/** Fields of a header after its magic number. Linux, Documentation/driver-api/early-userspace/buffer-format.rst. */
const FIELDS = 13;
const ALIGNMENT = 4;

/** The contents of an initial RAM file system. */
export interface Initramfs {
  /** A shell script. `/proc`, `/sys` and `/dev` are mounted. The guest powers off when it ends. */
  readonly script: string;
  /** Files by their names. They are in `/`. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
}

/** Packs an archive (cpio) whose first process runs the script. */
export function packInitramfs({ script, files = {} }: Initramfs): Uint8Array {
  const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
${script}
poweroff -f
`;
  const folders = ['bin', 'proc', 'sys', 'dev'].map((name) => ({ name, mode: FOLDER, contents: new Uint8Array() }));
  const all = { 'bin/busybox': readFileSync(BUSYBOX), init: Buffer.from(init), ...files };
  const programs = Object.entries(all).map(([name, contents]) => ({ name, mode: PROGRAM, contents }));
  const entries = [...folders, ...programs].flatMap((file, index) => entry({ inode: index + 1, ...file }));
  return Buffer.concat([...entries, ...entry({ inode: 0, name: 'TRAILER!!!', mode: 0, contents: new Uint8Array() })]);
}

interface Entry {
  readonly inode: number;
  readonly name: string;
  readonly mode: number;
  readonly contents: Uint8Array;
}

function entry({ inode, name, mode, contents }: Entry): Uint8Array[] {
  const fields = Array.from({ length: FIELDS }, () => 0);
  [fields[0], fields[1], fields[4], fields[6], fields[11]] = [inode, mode, 1, contents.length, name.length + 1];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return [...aligned(Buffer.from(header, 'latin1')), ...aligned(contents)];
}

function aligned(bytes: Uint8Array): Uint8Array[] {
  return [bytes, new Uint8Array(-bytes.length & (ALIGNMENT - 1))];
}
