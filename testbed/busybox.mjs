// Debian's statically linked busybox: the guest's first programs, and the packer of its initramfs.
import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { withSuite } from './apt.mjs';
import { cachedFolder } from './cache.mjs';

/**
 * Returns the path of busybox; fetches it if it is not cached. Any version is sufficient, so the first one is kept.
 * @returns {Promise<string>}
 */
export async function busybox() {
  const folder = await cachedFolder('busybox', async (built) => {
    const unpacked = join(built, 'unpacked');
    await withSuite('bookworm', async (apt) =>
      apt.unpack('busybox-static', await apt.version('busybox-static'), unpacked),
    );
    await copyFile(join(unpacked, 'bin/busybox'), join(built, 'busybox'));
    await rm(unpacked, { recursive: true });
  });
  return join(folder, 'busybox');
}
