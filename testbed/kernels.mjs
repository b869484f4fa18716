// The kernels that a guest can run, by their names for --kernel.
import { builtKernel } from './built-kernel.mjs';
import { debianKernel } from './debian-kernel.mjs';

/**
 * A kernel ready to boot.
 * @typedef {object} Kernel
 * @property {string} name the name for `--kernel`
 * @property {string} title a description for people
 * @property {string} image the path of its bzImage
 * @property {string | null} modules the folder of modules to load, in the order of its file `list`; null if all are
 *   built in
 * @property {string} key a hash of all of this
 */

/**
 * The functions that provide each kernel, from the cache if possible. Debian builds its kernels without iommufd, so
 * the first two support only VFIO's groups and type1 containers. The one built here supports all of VFIO, and KVM.
 *
 * @type {Readonly<Record<string, () => Promise<Kernel>>>}
 */
export const KERNELS = {
  6.1: () => debianKernel('6.1', 'bookworm'),
  6.12: () => debianKernel('6.12', 'bookworm-backports'),
  7.3: () => builtKernel('7.3', 'trixie-backports'),
};

export const DEFAULT_KERNEL = '6.12';
