/**
 * Devices opened directly by the native binding, which does not protect a caller from mistakes.
 */
import { NativeVfioContainer, type NativeVfioDevice, NativeVfioGroup, memorySettled } from '#native';
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import type { DeviceRegion } from '../../../ts/index.ts';

/** VFIO region index of config space (`linux/vfio.h`). */
const CONFIG = 7;

export function groupOf(bdf: string): number {
  return Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`)));
}

/** A container with the groups of some devices. */
export class NativeRig {
  readonly container: NativeVfioContainer = NativeVfioContainer.open();
  readonly groups: NativeVfioGroup[] = [];
  readonly devices: NativeVfioDevice[] = [];

  static async with(...addresses: readonly (string | undefined)[]): Promise<NativeRig> {
    const rig = new NativeRig();
    for (const bdf of addresses) await rig.join(bdf ?? '');
    return rig;
  }

  /** Closed when the test ends. */
  static async open(t: ExecutionContext, ...addresses: readonly (string | undefined)[]): Promise<NativeRig> {
    const rig = await NativeRig.with(...addresses);
    t.teardown(() => rig.close());
    return rig;
  }

  /** Opens the group of a device, and the device. */
  async join(bdf: string): Promise<NativeVfioDevice> {
    const group = NativeVfioGroup.open(groupOf(bdf));
    this.groups.push(group);
    await group.attachAsync(this.container);
    if (this.groups.length === 1) await this.container.setIommuAsync();
    const device = await group.openDeviceAsync(bdf);
    this.devices.push(device);
    return device;
  }

  /** Closes everything from the inside out. Idempotent. */
  close(): void {
    for (const device of this.devices.splice(0)) device.close();
    for (const group of this.groups.splice(0)) group.close();
    this.container.close();
  }
}

/** The edu behind a native device. */
export function nativeEdu(bdf: string, device: NativeVfioDevice): Edu {
  return new Edu(eduFunction(bdf, device));
}

function eduFunction(bdf: string, device: NativeVfioDevice): ConstructorParameters<typeof Edu>[0] {
  return {
    bdf,
    config: region(device, CONFIG),
    regions: [region(device, 0)],
  };
}

function region(device: NativeVfioDevice, index: number): DeviceRegion {
  return {
    index,
    length: device.regionInfo(index)?.length ?? 0n,
    mmapAreas: [],
    hostAddress: undefined,
    backing: () => {
      throw new Error('what is to be mapped comes from memoryFile()');
    },
    read: (offset, length) => {
      const bytes = new Uint8Array(length);
      device.readRegion(index, offset, bytes);
      return bytes;
    },
    write: (offset, bytes) => device.writeRegion(index, offset, bytes),
    read32: (offset) => device.read32(index, offset),
    write32: (offset, value) => device.write32(index, offset, value),
    read64: (offset) => device.read64(index, offset),
    write64: (offset, value) => device.write64(index, offset, value),
  };
}

/**
 * Collects the objects that JavaScript no longer refers to. Waits for their finalisers and for the dropper's thread.
 * The collector may not find all.
 *
 * @param isDone ends the collections, after the first one or a later one
 */
export async function collectGarbage(isDone: () => boolean = () => false): Promise<void> {
  if (gc === undefined) throw new Error('node runs with --expose-gc here');
  for (let round = 0; round < 3; round++) {
    gc();
    await turn();
    await turn();
    await memorySettled();
    if (isDone()) return;
  }
}
