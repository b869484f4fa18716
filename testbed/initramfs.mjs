// The initramfs, which leads a guest from the kernel's start to the command: busybox, the kernel's modules, two
// scripts.
import { copyFile, cp, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { busybox } from './busybox.mjs';
import { cachedFolder, digest } from './cache.mjs';
import { capture } from './process.mjs';

const SCRIPTS = new URL('./guest/', import.meta.url);

/**
 * Returns the initramfs for a kernel; packs it again after a change of the kernel or a script.
 *
 * @param {import("./kernels.mjs").Kernel} kernel
 * @returns {Promise<string>} the path of a compressed cpio archive
 */
export async function initramfs(kernel) {
  const shell = await busybox();
  const sources = ['guest/init', 'guest/run.sh', 'initramfs.mjs'];
  const contents = await Promise.all(sources.map((path) => readFile(new URL(path, import.meta.url))));
  const key = digest(kernel.key, await readFile(shell), ...contents);
  const folder = await cachedFolder(`initramfs/${kernel.name}-${key}`, async (built) => {
    const root = join(built, 'root');
    for (const path of ['bin', 'dev', 'proc', 'sys', 'host', 'newroot'])
      await mkdir(join(root, path), { recursive: true });
    await copyFile(shell, join(root, 'bin/busybox'));
    await copyFile(new URL('init', SCRIPTS), join(root, 'init'));
    await copyFile(new URL('run.sh', SCRIPTS), join(root, 'run.sh'));
    if (kernel.modules !== null) await cp(kernel.modules, join(root, 'modules'), { recursive: true });
    const pack = 'chmod 755 init && "$0" find . | "$0" cpio -o -H newc | "$0" gzip -1 >../initramfs.partial';
    await capture(shell, ['sh', '-c', `set -o pipefail; ${pack}`, shell], { seconds: 120, cwd: root });
    await rename(join(built, 'initramfs.partial'), join(built, 'initramfs'));
    await rm(root, { recursive: true });
  });
  return join(folder, 'initramfs');
}
