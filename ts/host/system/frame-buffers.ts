/**
 * BARs that the firmware's frame buffer has: VFIO can't map them (`pci_request_selected_regions` in
 * `vfio_pci_core_mmap` of Linux fails). They show in /proc/iomem.
 */
import { isPciAddress } from '../address.ts';
import type { PciFunction } from '../model.ts';
import type { BarResource } from '../resources.ts';

/** Resources of drivers/firmware/sysfb_simplefb.c, drivers/video/fbdev and drivers/gpu/drm/sysfb of Linux. */
const FRAME_BUFFERS =
  /^(?:BOOTFB|efifb|vesafb|simplefb|simpledrm|simple-framebuffer|efidrm|vesadrm|ofdrm|corebootdrm)(?:\W|$)/;

/** The kernel indents no deeper than this (5 or, in later kernels, 8 levels: `MAX_IORES_LEVEL` in kernel/resource.c). */
const LEAST_DEEPEST = 5;

/** One line: `  c0000000-c0ffffff : BOOTFB`. Users without privileges read 0 for all addresses. */
interface Resource {
  readonly depth: number;
  readonly start: bigint;
  readonly last: bigint;
  readonly name: string;
}

/**
 * The frame buffers that are on BARs of a function.
 *
 * @param iomem text of /proc/iomem
 * @returns their names, by VFIO's index of the BAR
 * @internal
 */
export function frameBuffersOn(iomem: string, device: PciFunction): Map<number, string> {
  const resources = iomem.split('\n').flatMap((line) => resourceOf(line) ?? []);
  const bars = device.bars.filter(({ kind, address }) => kind !== 'io' && address !== undefined);
  const isHidden = resources.every(({ last }) => last === 0n);
  return isHidden ? byOrder(resources, device.address, bars) : byAddresses(resources, bars);
}

function byAddresses(resources: readonly Resource[], bars: readonly BarResource[]): Map<number, string> {
  const found = new Map<number, string>();
  for (const { start, last, name } of resources.filter(isFrameBuffer)) {
    const on = bars.filter(({ address = 0n, length }) => start < address + length && address <= last);
    for (const { index } of on) if (!found.has(index)) found.set(index, name);
  }
  return found;
}

/** Resources are in the order of their addresses, so that BARs can be told apart without them. */
function byOrder(resources: readonly Resource[], device: string, bars: readonly BarResource[]): Map<number, string> {
  const found = new Map<number, string>();
  const sorted = bars.toSorted((a, b) => Number((a.address ?? 0n) - (b.address ?? 0n)));
  if (resources.filter(({ name }) => name === device).length !== sorted.length) return found;
  const deepest = resources.reduce((most, { depth }) => Math.max(most, depth), LEAST_DEEPEST);
  let seen = 0;
  let owner: { readonly depth: number; readonly bar: BarResource | undefined } | undefined;
  for (const resource of resources) {
    const { depth, name } = resource;
    // At the deepest level a resource within the BAR is indented like the BAR.
    const isWithin = owner !== undefined && (depth > owner.depth || (depth === owner.depth && depth === deepest));
    if (!isWithin || isPciAddress(name)) owner = undefined;
    if (isPciAddress(name)) owner = { depth, bar: name === device ? sorted[seen++] : undefined };
    const index = owner?.bar?.index;
    if (index !== undefined && isFrameBuffer(resource) && !found.has(index)) found.set(index, name);
  }
  return found;
}

function isFrameBuffer({ name }: Resource): boolean {
  return FRAME_BUFFERS.test(name);
}

function resourceOf(line: string): Resource | undefined {
  const [, indent = '', start, last, name] = /^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)$/i.exec(line) ?? [];
  if (name === undefined) return undefined;
  return { depth: indent.length / 2, start: BigInt(`0x${start}`), last: BigInt(`0x${last}`), name };
}
