/**
 * Fake iommufd whose address spaces accept only some devices. Import it before the package.
 */
import { createRequire } from 'node:module';
import type { NativeIoas, NativeIommufd, NativeVfioDevice } from '#native';
import { nativeError } from './native-error.ts';

/** Devices with these numbers share no address space with others. */
export const APART: ReadonlySet<number> = new Set([8, 9]);

interface FakeSpace {
  readonly devices: Set<number>;
}

const unclosable = new Set<number>();

/** Makes closing the device with that number fail. Its address space loses it all the same. */
export function failCloseOf(number: number): void {
  unclosable.add(number);
}

/** The device numbers of each address space, in order of creation. */
export const spaces: FakeSpace[] = [];

const binding = createRequire(import.meta.url)('../../ts/native/peerdma.linux-x64-gnu.node') as Record<string, unknown>;
binding['NativeIommufd'] = {
  open: () => ({ mapsFiles: true, close: () => {}, newIoas }) as unknown as NativeIommufd,
};
binding['NativeVfioDevice'] = {
  openByFileAsync: async (_: string, number: number) => {
    let within: FakeSpace | undefined;
    const attach = async (space: FakeSpace): Promise<void> => {
      if ([...space.devices].some((other) => APART.has(other) !== APART.has(number))) {
        const syscall = 'ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT)';
        throw nativeError('ERR_DEVICE_ATTACH', 'not beside those', { errno: 'EINVAL', syscall });
      }
      within = space;
      space.devices.add(number);
    };
    const closeAsync = async (): Promise<void> => {
      within?.devices.delete(number);
      if (unclosable.has(number)) throw nativeError('ERR_SYSTEM', 'the device does not close');
    };
    return { attach, closeAsync, checkDmaBufs: () => {} } as unknown as NativeVfioDevice;
  },
};

function newIoas(): NativeIoas {
  const space: FakeSpace & Record<string, unknown> = {
    devices: new Set<number>(),
    mappingCount: 0,
    info: () => ({ alignment: 4096n, iovaRanges: BigUint64Array.of(0n, 1n << 48n) }),
    closeAsync: async () => {
      const fields = { errno: 'EBUSY', syscall: 'ioctl(IOMMU_DESTROY)' };
      if (space.devices.size > 0) throw nativeError('ERR_DEVICE_IN_USE', 'in use', fields);
      spaces.splice(spaces.indexOf(space), 1);
    },
  };
  spaces.push(space);
  return space as unknown as NativeIoas;
}
