/**
 * Simulated PCI devices for a guest on a machine without an IOMMU. Programs drive them as they drive those of QEMU.
 */
import type { GuestMemory, PhysicalFunction } from 'peerdma';
import { SimulatedDevice, SimulatedIommu } from 'peerdma/testing';
import { endAll } from '../ends.ts';

/** `edu` (1234:11e8) does DMA and interrupts. `memory` is ivshmem-plain (1af4:1110) with 16 MiB. */
export const SIMULATED_KINDS = ['edu', 'memory'] as const;
export type SimulatedKind = (typeof SIMULATED_KINDS)[number];

/** Devices behind one IOMMU. Their owner disposes them after the guest's devices. */
export interface SimulatedDevices extends AsyncDisposable {
  /** In the order of their kinds. */
  readonly devices: readonly PhysicalFunction[];
}

/** A RAM controller (QEMU, docs/specs/ivshmem-spec.rst). */
const MEMORY_IDS = { vendor: 0x1af4, device: 0x1110, revision: 1, class: 0x050000 };
const MEMORY_REGISTERS = 0x100n;
const MEMORY_LENGTH = 16n << 20n;

/** Creates devices of some kinds. Their DMA reaches the guest memory that an IOMMU maps for them. */
export async function simulatedDevices(
  memory: GuestMemory,
  kinds: readonly SimulatedKind[],
): Promise<SimulatedDevices> {
  const iommu = new SimulatedIommu({ name: 'simulated IOMMU' });
  const handle = await memory.dmaMappers.addDmaMapper(iommu);
  const devices = kinds.map((kind, index) => create(kind, hostAddress(index), iommu));
  return {
    devices,
    [Symbol.asyncDispose]: async () => {
      await endAll([...devices.map((device) => () => device.close()), async () => handle.remove()]);
    },
  };
}

function create(kind: SimulatedKind, bdf: string, iommu: SimulatedIommu): SimulatedDevice {
  if (kind === 'edu') return SimulatedDevice.edu({ bdf, iommu });
  return new SimulatedDevice({
    bdf,
    ids: MEMORY_IDS,
    bars: [
      { index: 0, length: MEMORY_REGISTERS },
      { index: 2, length: MEMORY_LENGTH, kind: 'memory64', prefetchable: true },
    ],
  });
}

/** An address in a domain that no machine has, so that it is not that of a physical device. */
function hostAddress(index: number): string {
  const device = index % 32;
  return `ffff:${hex(Math.floor(index / 32))}:${hex(device)}.0`;
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}
