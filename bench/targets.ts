/**
 * DMA targets that cost next to nothing themselves, so that the rest is measured.
 */
import { NativeVfioContainer, NativeVfioGroup } from '#native';
import type { DmaMapperHandle, DmaTarget, GuestMemory } from '../ts/index.ts';
import type { TargetPort } from '../ts/dma/target-port.ts';
import { joinPort } from '../ts/guest/dma-mapper-client.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import { Type1Target } from '../ts/vfio/type1/type1-target.ts';

/** Registers a target with guest memory. */
export type Join = (memory: GuestMemory) => Promise<DmaMapperHandle>;

/** A custom target that maps nothing. */
export function noOpTarget(): DmaTarget {
  return { name: 'no-op', mapDma() {}, unmapDma() {}, mapDmaBatch() {} };
}

export const joinNoOp: Join = (memory) => memory.dmaMappers.addDmaMapper(noOpTarget());

/** Registers an IOMMU address space of the kernel, as the managers of containers do. */
export function joining(port: TargetPort): Join {
  return (memory) => joinPort(addressSpaceOf(memory), port, 'best-effort');
}

/** The number of the stub's group: any. */
const GROUP = 1;

/** A type1 target whose ioctls are left out. */
export interface Type1WithoutIoctl {
  readonly join: Join;
  /** At the end: the group is collected, and the container loses its IOMMU, once nothing can reach them. */
  close(): void;
}

/** Only in a child process with `withoutIoctl`. */
export async function type1WithoutIoctl(): Promise<Type1WithoutIoctl> {
  const container = NativeVfioContainer.open();
  const group = NativeVfioGroup.open(GROUP);
  await group.attachAsync(container);
  await container.setIommuAsync();
  const close = (): void => {
    group.close();
    container.close();
  };
  return { join: joining(new Type1Target(container, 'type1 without ioctl')), close };
}
