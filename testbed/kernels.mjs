// The kernels a guest can run, by the name that --kernel takes.
import { builtKernel } from './built-kernel.mjs';
import { debianKernel } from './debian-kernel.mjs';

/**
 * A kernel ready to boot.
 * @typedef {object} Kernel
 * @property {string} name as `--kernel` takes it
 * @property {string} title what it is, for people
 * @property {string} image path of its bzImage
 * @property {string | null} modules folder of the modules to load, in the order of its file `list`; null where all is built in
 * @property {string} key changes whenever any of this does
 */

/**
 * Each entry provides its kernel, from the cache where it can. Debian builds its kernels without iommufd: of the first
 * two there are VFIO's groups and type1 containers only. The one that is built here has all of VFIO, and KVM.
 *
 * @type {Readonly<Record<string, () => Promise<Kernel>>>}
 */
export const KERNELS = {
  6.1: () => debianKernel('6.1', 'bookworm'),
  6.12: () => debianKernel('6.12', 'bookworm-backports'),
  7.3: () => builtKernel('7.3', 'trixie-backports'),
};

export const DEFAULT_KERNEL = '6.12';
