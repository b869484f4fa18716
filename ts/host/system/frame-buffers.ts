/**
 * Finds BARs that contain the firmware's frame buffer, by /proc/iomem.
 *
 * VFIO cannot map such BARs (`pci_request_selected_regions` in `vfio_pci_core_mmap` of Linux fails).
 */
import { isPciAddress } from '../address.ts';
import type { PciFunction } from '../model.ts';
import type { BarResource } from '../resources.ts';

/** Names of Linux: drivers/firmware/sysfb_simplefb.c, drivers/video/fbdev, drivers/gpu/drm/sysfb. */
const FRAME_BUFFERS =
  /^(?:BOOTFB|efifb|vesafb|simplefb|simpledrm|simple-framebuffer|efidrm|vesadrm|ofdrm|corebootdrm)(?:\W|$)/;

/** The kernel's deepest indentation, `MAX_IORES_LEVEL` of kernel/resource.c: 5, or 8 in later kernels. */
const MIN_DEEPEST = 5;

/** One line: `  c0000000-c0ffffff : BOOTFB`. Users without privileges read 0 for all addresses. */
interface Resource {
  readonly depth: number;
  readonly start: bigint;
  readonly last: bigint;
  readonly name: string;
}

/** A frame buffer on a resource of a function, if addresses are hidden. */
interface Placed {
  /** Index among the resources of the function, in the order of their addresses. */
  readonly order: number;
  readonly name: string;
}

/** The frame buffers of a machine. @internal */
export class FrameBuffers {
  /** Frame buffers with addresses; empty if addresses are hidden. */
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

  /** Returns the names of frame buffers on a function, by VFIO's region index of the BAR. */
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

  /** Without addresses, identifies BARs by their order: resources are sorted by address. */
  #byOrder(bdf: string, bars: readonly BarResource[]): Map<number, string> {
    const found = new Map<number, string>();
    const sorted = bars.toSorted((a, b) => Number((a.address ?? 0n) - (b.address ?? 0n)));
    if (this.#counts.get(bdf) !== sorted.length) return found;
    for (const { order, name } of this.#placed.get(bdf) ?? []) {
      const index = sorted[order]?.index;
      if (index !== undefined && !found.has(index)) found.set(index, name);
    }
    return found;
  }

  #place(resources: readonly Resource[]): void {
    const deepest = resources.reduce((most, { depth }) => Math.max(most, depth), MIN_DEEPEST);
    let owner: { readonly depth: number; readonly bdf: string; readonly order: number } | undefined;
    for (const resource of resources) {
      const { depth, name } = resource;
      // At the deepest level a resource within the BAR is indented like the BAR.
      const isWithin = owner !== undefined && (depth > owner.depth || (depth === owner.depth && depth === deepest));
      if (isPciAddress(name)) {
        const order = this.#counts.get(name) ?? 0;
        this.#counts.set(name, order + 1);
        owner = { depth, bdf: name, order };
      } else if (!isWithin) {
        owner = undefined;
      }
      if (owner === undefined || !isFrameBuffer(resource)) continue;
      const placed = this.#placed.get(owner.bdf) ?? [];
      placed.push({ order: owner.order, name });
      this.#placed.set(owner.bdf, placed);
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
