/**
 * An initial RAM file system for Linux in a virtual machine: busybox and a script.
 */
import { readFileSync } from 'node:fs';

/** The static busybox of the testbed. */
const BUSYBOX = '/run/testbed/bin/busybox';

const FOLDER = 0o040755;
const PROGRAM = 0o100755;
/** Fields of a header after its magic number. Linux, Documentation/driver-api/early-userspace/buffer-format.rst. */
const FIELDS = 13;
const ALIGNMENT = 4;

/** Packs an archive whose first process runs a shell script. `/proc`, `/sys` and `/dev` are mounted. */
export function initramfs(script: string): Uint8Array {
  const init = [
    '#!/bin/busybox sh',
    '/bin/busybox --install -s /bin',
    'export PATH=/bin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    script,
    'poweroff -f',
    '',
  ].join('\n');
  const folders = ['bin', 'proc', 'sys', 'dev'].map((name, index) => entry(index + 1, name, FOLDER, Buffer.alloc(0)));
  const files = [
    entry(10, 'bin/busybox', PROGRAM, readFileSync(BUSYBOX)),
    entry(11, 'init', PROGRAM, Buffer.from(init)),
  ];
  return Buffer.concat([...folders, ...files, entry(0, 'TRAILER!!!', 0, Buffer.alloc(0))]);
}

function entry(inode: number, name: string, mode: number, contents: Buffer): Buffer {
  const fields = Array.from({ length: FIELDS }, () => 0);
  [fields[0], fields[1], fields[4], fields[6], fields[11]] = [inode, mode, 1, contents.length, name.length + 1];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
  return Buffer.concat([aligned(Buffer.from(header, 'latin1')), aligned(contents)]);
}

function aligned(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & (ALIGNMENT - 1))]);
}
