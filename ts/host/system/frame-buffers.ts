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

/** A frame buffer that is on a resource of a function whose addresses are hidden. */
interface Placed {
  /** Number of the resource among those of the function, in the order of their addresses. */
  readonly order: number;
  readonly name: string;
}

/** The frame buffers of a machine. @internal */
export class FrameBuffers {
  /** With their addresses; empty if these are hidden. */
  readonly #visible: readonly Resource[];
  readonly #counts = new Map<string, number>();
  readonly #placed = new Map<string, Placed[]>();

  /** @param iomem text of /proc/iomem */
  constructor(iomem: string) {
    const resources = iomem.split('\n').flatMap((line) => resourceOf(line) ?? []);
    const isHidden = resources.every(({ last }) => last === 0n);
    this.#visible = isHidden ? [] : resources.filter(isFrameBuffer);
    if (isHidden) this.#place(resources);
  }

  /** Those on BARs of a function: their names, by VFIO's index of the BAR. */
  on(device: PciFunction): Map<number, string> {
    const bars = device.bars.filter(({ kind, address }) => kind !== 'io' && address !== undefined);
    return this.#counts.size > 0 ? this.#byOrder(device.address, bars) : this.#byAddresses(bars);
  }

  #byAddresses(bars: readonly BarResource[]): Map<number, string> {
    const found = new Map<number, string>();
    for (const { start, last, name } of this.#visible) {
      const on = bars.filter(({ address = 0n, length }) => start < address + length && address <= last);
      for (const { index } of on) if (!found.has(index)) found.set(index, name);
    }
    return found;
  }

  /** Resources are in the order of their addresses, so that BARs can be told apart without them. */
  #byOrder(device: string, bars: readonly BarResource[]): Map<number, string> {
    const found = new Map<number, string>();
    const sorted = bars.toSorted((a, b) => Number((a.address ?? 0n) - (b.address ?? 0n)));
    if (this.#counts.get(device) !== sorted.length) return found;
    for (const { order, name } of this.#placed.get(device) ?? []) {
      const index = sorted[order]?.index;
      if (index !== undefined && !found.has(index)) found.set(index, name);
    }
    return found;
  }

  #place(resources: readonly Resource[]): void {
    const deepest = resources.reduce((most, { depth }) => Math.max(most, depth), LEAST_DEEPEST);
    let owner: { readonly depth: number; readonly device: string; readonly order: number } | undefined;
    for (const resource of resources) {
      const { depth, name } = resource;
      // At the deepest level a resource within the BAR is indented like the BAR.
      const isWithin = owner !== undefined && (depth > owner.depth || (depth === owner.depth && depth === deepest));
      if (isPciAddress(name)) {
        const order = this.#counts.get(name) ?? 0;
        this.#counts.set(name, order + 1);
        owner = { depth, device: name, order };
      } else if (!isWithin) {
        owner = undefined;
      }
      if (owner === undefined || !isFrameBuffer(resource)) continue;
      const placed = this.#placed.get(owner.device) ?? [];
      placed.push({ order: owner.order, name });
      this.#placed.set(owner.device, placed);
    }
  }
}

function isFrameBuffer({ name }: Resource): boolean {
  return FRAME_BUFFERS.test(name);
}

function resourceOf(line: string): Resource | undefined {
  const [, indent = '', start, last, name] = /^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)$/i.exec(line) ?? [];
  if (name === undefined) return undefined;
  return { depth: indent.length / 2, start: BigInt(`0x${start}`), last: BigInt(`0x${last}`), name };
}
