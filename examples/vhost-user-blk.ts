/**
 * A virtio disk of another process.
 *
 * It reads its first sector into guest memory, writes another one, and follows RAM that is added meanwhile.
 *
 * The argument is the socket of a vhost-user back end, for example of QEMU's storage daemon:
 *
 *     qemu-storage-daemon --blockdev driver=file,node-name=disk,filename=disk.img \
 *       --export type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=disk.sock,writable=on
 *     node --import=./scripts/typescript/register.mjs examples/vhost-user-blk.ts disk.sock
 */
import { AddressRange, GuestMemory, MemoryFile } from 'peerdma';
import { VhostUserTarget } from 'peerdma/vhost-user';
import { DRIVER_FEATURES, VirtioBlk } from './devices/virtio-blk.ts';

const [path = ''] = process.argv.slice(2);
if (path === '') throw new Error('the path of a socket is needed');

const MIB = 1n << 20n;
await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 64n * MIB }] });
await using disk = await VhostUserTarget.connect(path, { features: DRIVER_FEATURES });
const config = await disk.readConfig(0, 8);
console.log(`the disk has ${new DataView(config.buffer).getBigUint64(0, true)} sectors`);

// The back end maps the RAM of the guest, and all that is added later.
await using joined = await memory.dmaMappers.addDmaMapper(disk);
console.log(
  `it maps ${joined
    .status()
    .map(({ range }) => String(range))
    .join(', ')}`,
);
const driver = await VirtioBlk.start(disk, memory, MIB);

await driver.read(0n, 2n * MIB, 1);
console.log(`sector 0 begins with ${JSON.stringify(textAt(2n * MIB))}`);
memory.write(2n * MIB, new TextEncoder().encode('from the guest'));
await driver.write(1n, 2n * MIB, 1);
await driver.flush();

using file = MemoryFile.create(16n * MIB, { name: 'hotplug' });
const region = await memory.regions.addRegion({ name: 'hotplug', range: AddressRange.of(1n << 32n, 16n * MIB) });
await region.addMapping({ backing: { file, offset: 0n } });
await region.mapToGuest();
console.log(
  `it maps ${joined
    .status()
    .map(({ range }) => String(range))
    .join(', ')}`,
);
await driver.read(1n, 1n << 32n, 1);
console.log(`sector 1 begins with ${JSON.stringify(textAt(1n << 32n))}`);
await region.remove();
await driver.stop();

function textAt(address: bigint): string {
  return new TextDecoder().decode(memory.read(address, 14));
}
