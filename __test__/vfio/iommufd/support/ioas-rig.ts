/**
 * An address space of iommufd and devices opened by their own files. It uses the native binding directly, which does
 * not protect a caller from mistakes.
 */
import { NativeIommufd, type NativeIoas, NativeVfioDevice } from '#native';
import { readdirSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { unmapAll } from '../../support/native-calls.ts';

/** N of a device's file `/dev/vfio/devices/vfioN`. */
export function fileNumberOf(bdf: string): number {
  const [name = ''] = readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`);
  return Number(name.replace(/^vfio/, ''));
}

export class IoasRig {
  readonly iommufd: NativeIommufd = NativeIommufd.open();
  readonly ioas: NativeIoas = this.iommufd.newIoas();
  readonly devices: NativeVfioDevice[] = [];

  /** Opens and attaches these devices in order. Closed when the test ends. */
  static async open(t: ExecutionContext, ...addresses: readonly string[]): Promise<IoasRig> {
    const rig = new IoasRig();
    t.teardown(() => rig.close());
    for (const bdf of addresses) await rig.join(bdf);
    return rig;
  }

  /** Opens a device without attaching it. */
  async bind(bdf: string): Promise<NativeVfioDevice> {
    const device = await NativeVfioDevice.openByFileAsync(bdf, fileNumberOf(bdf), this.iommufd);
    this.devices.push(device);
    return device;
  }

  /** Opens a device and attaches it. */
  async join(bdf: string): Promise<NativeVfioDevice> {
    const device = await this.bind(bdf);
    await device.attach(this.ioas);
    return device;
  }

  /** Closes it with all its mappings. Idempotent. */
  close(): void {
    try {
      unmapAll(this.ioas);
    } catch {
      // The test has closed it, or lost it on purpose: it ends with the address space.
    }
    for (const device of this.devices.splice(0)) device.close();
    this.ioas.close();
    this.iommufd.close();
  }
}
