// A kernel of a Debian package: vmlinuz and the modules that the guest loads, decompressed, in loading order.
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { withSuite } from './apt.mjs';
import { busybox } from './busybox.mjs';
import { cacheRoot, cachedFolder, digest, remembered } from './cache.mjs';
import { textOf } from './console.mjs';
import { TestbedError } from './errors.mjs';
import { imageProblem } from './image.mjs';
import { capture } from './process.mjs';

/** Part of the key. Increase it when the same package makes other files. */
const RECIPE = '1';
/** Modules that the guest loads, in addition to their dependencies. Modules that a kernel does not have are skipped. */
const MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'vfio_iommu_type1', 'vfio_pci'];

/** @typedef {import("./kernels.mjs").Kernel} Kernel */
/** @typedef {{ name: string, version: string }} Package */

/**
 * Returns a Debian kernel, from the cache or else from the machine's mirror.
 *
 * @param {string} series the first parts of its version: `6.12`
 * @param {string} suite the Debian suite of its package
 * @returns {Promise<Kernel>}
 */
export async function debianKernel(series, suite) {
  /** @param {Package} found */
  const keyOf = ({ name, version }) => digest(RECIPE, name, version, ...MODULES);
  /** @param {Package} found */
  const folderOf = (found) => `kernel/${series}-${keyOf(found)}`;
  // The mirror may have dropped a version since: a remembered version is usable only if the cache has its kernel.
  const found = await remembered(
    `kernel-${series}.json`,
    7,
    () => withSuite(suite, (apt) => newest(apt, series)),
    (known) => existsSync(join(cacheRoot(), folderOf(known))),
  );
  const folder = await cachedFolder(
    folderOf(found),
    async (built) => {
      const unpacked = join(built, 'unpacked');
      await withSuite(suite, (apt) => apt.unpack(found.name, found.version, unpacked));
      await extractKernel(unpacked, built);
      await rm(unpacked, { recursive: true });
    },
    (folder) => packageProblem(folder, series),
  );
  return {
    name: series,
    title: `Linux ${series} (${found.name} ${found.version})`,
    image: join(folder, 'vmlinuz'),
    modules: join(folder, 'modules'),
    key: keyOf(found),
  };
}

/**
 * @param {import("./apt.mjs").Suite} apt
 * @param {string} series
 * @returns {Promise<Package>}
 */
async function newest(apt, series) {
  // 6.1.0-50-amd64, 6.12.95+deb12-amd64; not the -cloud and -rt flavours, nor -unsigned and -dbg
  const pattern = new RegExp(`^linux-image-${series.replaceAll('.', '\\.')}\\.[0-9.+~a-z]*(-[0-9]+)?-amd64$`);
  const [name] = await apt.names(pattern);
  if (name === undefined) throw new TestbedError(`apt finds no linux-image-${series}…-amd64`);
  return { name, version: await apt.version(name) };
}

/**
 * Returns the problem of a folder of the cache: a missing image or module.
 *
 * @param {string} folder
 * @param {string} series
 * @returns {Promise<string | undefined>} undefined for a folder without a problem
 */
export async function packageProblem(folder, series) {
  const names = (await textOf(join(folder, 'modules/list'))).split('\n').filter(Boolean);
  const lost = names.filter((name) => !existsSync(join(folder, 'modules', name)));
  if (names.length === 0 || lost.length > 0) return `modules are missing: ${lost.join(', ') || 'all'}`;
  const image = join(folder, 'vmlinuz');
  return imageProblem(image, series);
}

/**
 * Copies the image and the modules of a package.
 *
 * @param {string} unpacked a linux-image package's files
 * @param {string} folder the folder for `vmlinuz` and `modules/`
 */
async function extractKernel(unpacked, folder) {
  const files = await readdir(unpacked, { recursive: true });
  // Up to Debian 13 the image is in /boot, later beside its modules.
  const image = files.find((path) => /(^|\/)vmlinuz[^/]*$/.test(path));
  if (image === undefined) throw new TestbedError('the kernel package has no vmlinuz');
  await copyFile(join(unpacked, image), join(folder, 'vmlinuz'));

  const modules = join(folder, 'modules');
  await mkdir(modules);
  const paths = new Map(files.filter((path) => /\.ko(\.xz)?$/.test(path)).map((path) => [moduleName(path), path]));
  /** @type {string[]} */
  const order = [];
  /** @type {Set<string>} */
  const seen = new Set();
  const add = async (/** @type {string} */ name) => {
    const path = paths.get(name);
    if (path === undefined || seen.has(name)) return;
    seen.add(name);
    const bare = join(modules, basename(path).replace(/\.xz$/, ''));
    await copyFile(join(unpacked, path), join(modules, basename(path)));
    if (path.endsWith('.xz')) await capture(await busybox(), ['unxz', join(modules, basename(path))], { seconds: 60 });
    for (const needed of dependencies(await readFile(bare))) await add(needed);
    order.push(basename(bare));
  };
  for (const name of MODULES) await add(name);
  await writeFile(join(modules, 'list'), order.map((file) => `${file}\n`).join(''));
}

/**
 * Returns the name of a module: `vfio_pci` for `vfio-pci.ko.xz`.
 * @param {string} path
 */
function moduleName(path) {
  return basename(path)
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_');
}

/**
 * Returns the modules that are loaded before this one.
 *
 * They are the `depends=` entry of its `.modinfo` section, whose entries are NUL-terminated strings (Linux,
 * include/linux/moduleparam.h). The section has no soft dependencies; the guest requires none.
 *
 * @param {Buffer} image a decompressed module
 * @returns {string[]}
 */
export function dependencies(image) {
  const start = image.indexOf('\0depends=');
  if (start < 0) return [];
  const text = image.toString('latin1', start + '\0depends='.length, image.indexOf(0, start + 1));
  return text
    .split(',')
    .filter((name) => name !== '')
    .map((name) => name.replaceAll('-', '_'));
}
