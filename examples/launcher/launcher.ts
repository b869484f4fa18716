/**
 * A launcher: opens devices as root, as libvirt does, and passes them to a VMM without privileges.
 *
 * The VMM is the user nobody in a folder without /sys and /dev, so the descriptors are all that it gets. The devices
 * are bound to vfio-pci: an edu, which writes by DMA, and an ivshmem, to whose memory it writes.
 *
 *     node --import=./scripts/typescript/register.mjs examples/launcher/launcher.ts type1 0000:00:04.0 0000:00:06.0
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, dirname, extname } from 'node:path';
import { UnixSocket } from 'peerdma';
import { type Assignment, sendAssignment } from './messages.ts';
import { Root } from './root.ts';

const NOBODY = 65_534;
/** The memory that the VMM may pin, in bytes: the RAM of its guest, and some more. */
const LOCKED = 64 << 20;

const [backend, edu, peer, locked = String(LOCKED)] = process.argv.slice(2);
if ((backend !== 'type1' && backend !== 'iommufd') || edu === undefined || peer === undefined) {
  throw new Error('launcher.ts type1|iommufd EDU IVSHMEM [BYTES OF LOCKED MEMORY]');
}

const of = (bdf: string): string => `/sys/bus/pci/devices/${bdf}`;
const groupOf = (bdf: string): number => Number(basename(readlinkSync(`${of(bdf)}/iommu_group`)));

/** The files of the devices, and that of the address space they share. */
function paths(): string[] {
  const bdfs = [edu ?? '', peer ?? ''];
  return backend === 'type1'
    ? [...bdfs.map((bdf) => `/dev/vfio/${groupOf(bdf)}`), '/dev/vfio/vfio']
    : [...bdfs.map((bdf) => `/dev/vfio/devices/${readdirSync(`${of(bdf)}/vfio-dev`)[0]}`), '/dev/iommu'];
}

const assignment: Assignment = {
  backend,
  devices: [edu, peer].map((bdf) => ({ bdf, iommuGroup: groupOf(bdf) })),
};
const descriptors = paths().map((path) => openSync(path, 'r+'));

// The VMM inherits one end of the socket as its descriptor 3, and nothing else.
const [socket, theirs] = UnixSocket.pair();
const program = new URL(`vmm${extname(import.meta.url)}`, import.meta.url).pathname;
using root = new Root([process.cwd(), dirname(process.execPath)]);
const limits = ['prlimit', `--memlock=${locked}`];
const user = ['chroot', `--userspec=${NOBODY}:${NOBODY}`, '--groups=', root.path];
const [command = '', ...args] = [...limits, ...user, process.execPath, ...process.execArgv, program];
const vmm = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', theirs.fd], cwd: '/' });
const ended = once(vmm, 'exit');
theirs.close();

await sendAssignment(socket, assignment, descriptors);
for (const descriptor of descriptors) closeSync(descriptor); // those in the message keep the files open
const [status] = await ended;
socket.close();
process.exitCode = typeof status === 'number' ? status : 1;
