/**
 * Fake native core: chosen results for /dev/iommu and device files. Import it before the package.
 */
import { createRequire } from 'node:module';
import type { NativeIommufd, NativeVfioDevice } from '#native';
import { nativeError } from './native-error.ts';

/** What the kernel would say. */
export interface FakeKernel {
  /** How /dev/iommu answers. */
  readonly iommu: { readonly mapsFiles: boolean } | { readonly errno: string };
  /** How the device's file does. */
  readonly device: { readonly exports: boolean } | { readonly errno: string; readonly syscall: string };
}

let kernel: FakeKernel | undefined;
const open: string[] = [];

/** From now on the kernel answers so. @returns what is open of it, now and later */
export function setFakeKernel(next: FakeKernel): readonly string[] {
  kernel = next;
  open.length = 0;
  return open;
}

/** Counts something that is open. @returns what closes it */
export function opened(what: string): () => void {
  open.push(what);
  return () => void open.splice(open.indexOf(what), 1);
}

/** As the native core throws it. */
function thrown(errno: string, syscall: string): Error {
  return nativeError('ERR_SYSTEM', `${errno} from ${syscall}`, { errno, syscall });
}

function known(): FakeKernel {
  if (kernel === undefined) throw new Error('no kernel was made up');
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
