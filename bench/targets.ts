/**
 * DMA targets that cost next to nothing themselves, so that the rest is measured.
 */
import { readlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
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

/** As many threads as the native core faults memory in with. */
export const FAULT_IN_THREADS: number = Math.max(1, Math.min(availableParallelism() - 1, 8));

/** A way to join a type1 target in a container of its own. */
export interface JoinType1 {
  readonly join: Join;
  /** At the end: the group is collected, and the container loses its IOMMU, once nothing can reach them. */
  close(): void;
}

/** The number of a device's group. */
export function groupOf(bdf: string): number {
  return Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`)));
}

export async function joinType1(group: number): Promise<JoinType1> {
  const container = NativeVfioContainer.open();
  const handle = NativeVfioGroup.open(group);
  await handle.attachAsync(container);
  await container.setIommuAsync();
  const close = (): void => {
    handle.close();
    container.close();
  };
  return { join: joining(new Type1Target(container, 'bench')), close };
}

/** The stub's group: any number. */
export const STUB_GROUP = 1;

/** A type1 target whose ioctls are left out. Only in a child process with `withoutIoctl`. */
export const type1WithoutIoctl = (): Promise<JoinType1> => joinType1(STUB_GROUP);
