/**
 * DMA targets with nearly no cost of their own, so that the rest is measured.
 */
import { readlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { NativeVfioContainer, NativeVfioGroup } from '#native';
import type { DmaMapperHandle, DmaTarget, GuestMemory } from '../ts/index.ts';
import type { TargetPort } from '../ts/dma/target-port.ts';
import { readPeerPolicy } from '../ts/dma/peer-policy.ts';
import { joinPort } from '../ts/guest/dma-mapper-client.ts';
import { guestAddressSpaceOf } from '../ts/guest/guest-memory.ts';
import { Type1Target } from '../ts/vfio/type1/type1-target.ts';

/** Registers a target with guest memory. */
export type Join = (memory: GuestMemory) => Promise<DmaMapperHandle>;

/** A custom target that maps nothing. */
export function noOpTarget(): DmaTarget {
  return { name: 'no-op', mapDma() {}, unmapDma() {}, mapDmaBatch() {} };
}

export const joinNoOp: Join = (memory) => memory.dmaMappers.addDmaMapper(noOpTarget());

/** Returns a function that registers an IOMMU address space of the kernel, like the back ends. */
export function joinWithPort(port: TargetPort): Join {
  return (memory) => joinPort(guestAddressSpaceOf(memory), port, readPeerPolicy());
}

/** The number of threads with which the native core faults memory in. */
export const FAULT_IN_THREADS: number = Math.max(1, Math.min(availableParallelism() - 1, 8));

/** A type1 target in a separate container. */
export interface JoinType1 {
  readonly join: Join;
  /** Call it last: it releases the group, and with it the container's IOMMU. */
  close(): void;
}

/** Returns the number of a device's group. */
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
  return { join: joinWithPort(new Type1Target(container, 'bench')), close };
}

/** The stub's group; any number is valid. */
export const STUB_GROUP = 1;

/** Joins a type1 target without ioctls. Only in a child process with `withoutIoctl`. */
export const type1WithoutIoctl = (): Promise<JoinType1> => joinType1(STUB_GROUP);
