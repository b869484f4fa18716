/**
 * Fake native core: chosen results for /dev/iommu and device files. Import it before the package.
 */
import { createRequire } from 'node:module';
import type { NativeIommufd, NativeVfioDevice } from '#native';
import { nativeError } from './native-error.ts';

/** The results of the fake kernel. */
export interface FakeKernel {
  /** The result for /dev/iommu. */
  readonly iommu: { readonly mapsFiles: boolean } | { readonly errno: string };
  /** The result for the device's file. */
  readonly device: { readonly exports: boolean } | { readonly errno: string; readonly syscall: string };
}

let kernel: FakeKernel | undefined;
const open: string[] = [];

/** Sets the results from now on. @returns the open objects, also later ones */
export function setFakeKernel(next: FakeKernel): readonly string[] {
  kernel = next;
  open.length = 0;
  return open;
}

/** Counts an open object. @returns the function that closes it */
export function opened(what: string): () => void {
  open.push(what);
  return () => void open.splice(open.indexOf(what), 1);
}

/** An error in the form of the native core. */
function thrown(errno: string, syscall: string): Error {
  return nativeError('ERR_SYSTEM', `${errno} from ${syscall}`, { errno, syscall });
}

function known(): FakeKernel {
  if (kernel === undefined) throw new Error('no fake kernel was set');
  return kernel;
}

const binding = createRequire(import.meta.url)('../../ts/native/peerdma.linux-x64-gnu.node') as Record<string, unknown>;
binding['NativeIommufd'] = {
  open: (): NativeIommufd => {
    const { iommu } = known();
    if ('errno' in iommu) throw thrown(iommu.errno, 'open(/dev/iommu)');
    const newIoas = (): never => {
      throw thrown('ENOMEM', 'ioctl(IOMMU_IOAS_ALLOC)');
    };
    return { mapsFiles: iommu.mapsFiles, close: opened('iommufd'), newIoas } as unknown as NativeIommufd;
  },
};
binding['NativeVfioDevice'] = {
  openByFileAsync: async (_: string, number: number): Promise<NativeVfioDevice> => {
    const { device } = known();
    if ('errno' in device) throw thrown(device.errno, device.syscall);
    const checkDmaBufs = (): void => {
      if (!device.exports) throw thrown('ENOTTY', 'ioctl(VFIO_DEVICE_FEATURE)');
    };
    const close = opened(`device ${number}`);
    return { checkDmaBufs, closeAsync: async () => close() } as unknown as NativeVfioDevice;
  },
};
