/**
 * The devices of the guest's PCI bus: physical ones by VFIO, and simulated ones.
 */
import {
  AssignedDevice,
  type GuestMemory,
  type PciHostBridge,
  type PhysicalFunction,
  type VfioBackendName,
  VfioContainerManager,
  nvidiaP2pClique,
} from 'peerdma';
import type { DeviceArgument } from '../arguments.ts';
import { endAll } from '../ends.ts';
import { gpuMirrors } from './gpu-mirrors.ts';
import { type SimulatedKind, simulatedDevices } from './simulated.ts';

/** The devices that a guest gets. */
export interface PciDevices {
  /** Physical devices, which are bound to vfio-pci. */
  readonly devices: readonly DeviceArgument[];
  readonly simulated: readonly SimulatedKind[];
  /** The interface of VFIO. */
  readonly backend: 'auto' | VfioBackendName;
}

/** The first device number. The host bridge is 0. */
const FIRST_SLOT = 1;
/** The last device number of a bus (PCI Local Bus Specification 3.0, 3.2.2.3.4): that of virtio-mem. */
export const MEMORY_SLOT = 31;
/** The most devices. */
export const MAX_DEVICES: number = MEMORY_SLOT - FIRST_SLOT;

/**
 * Puts devices on the bus, from 00:01.0 on.
 *
 * @param options up to {@link MAX_DEVICES} devices
 * @returns removes and closes them
 */
export async function addDevices(
  memory: GuestMemory,
  bridge: PciHostBridge,
  { devices, simulated, backend }: PciDevices,
): Promise<AsyncDisposable> {
  const ends: (() => void | Promise<void>)[] = [];
  const dispose = async (): Promise<void> => endAll(ends.toReversed());
  let slot = FIRST_SLOT;
  const add = async (device: PhysicalFunction, clique?: number): Promise<void> => {
    const capabilities = clique === undefined ? [] : [nvidiaP2pClique(clique)];
    const assigned = await AssignedDevice.create({ device, memory, capabilities, mirrors: gpuMirrors(device) });
    ends.push(() => assigned.close());
    const address = `00:${(slot++).toString(16).padStart(2, '0')}.0`;
    bridge.add(address, assigned);
    ends.push(() => bridge.remove(address));
  };
  try {
    const manager = new VfioContainerManager(memory, { backend });
    ends.push(() => manager.close());
    for (const { bdf, clique } of devices) await add(await manager.open(bdf), clique);
    if (simulated.length > 0) {
      const models = await simulatedDevices(memory, simulated);
      ends.push(async () => models[Symbol.asyncDispose]());
      for (const device of models.devices) await add(device);
    }
  } catch (error) {
    await dispose().catch(() => {}); // the cause counts more
    throw error;
  }
  return { [Symbol.asyncDispose]: dispose };
}
