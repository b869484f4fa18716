/**
 * Walks the two chains of capabilities.
 *
 * A broken or malicious device can have chains that loop or point anywhere. The result is finite, in chain order, and
 * within config space. In a truncated config space, a chain ends at a pointer past the end.
 */
import type { PeerDmaError } from '../../errors.ts';
import { type ConfigImage, at } from './config-image.ts';
import {
  ARI_SIZEOF,
  CAPABILITY_LIST,
  CAPABILITY_LIST_CARDBUS,
  CAP_LIST_NEXT,
  CAP_POINTER_MASK,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  EXT_CAP_ID_ARI,
  EXT_CAP_ID_REBAR,
  EXT_CAP_ID_SRIOV,
  EXT_CAP_ID_VF_REBAR,
  HEADER_TYPE,
  HEADER_TYPE_CARDBUS,
  HEADER_TYPE_MASK,
  REBAR_CAP,
  REBAR_CTRL,
  REBAR_CTRL_NBAR_MASK,
  REBAR_CTRL_NBAR_SHIFT,
  REBAR_ENTRY_SIZE,
  SRIOV_SIZEOF,
  STATUS,
  STATUS_CAP_LIST,
  STD_HEADER_SIZEOF,
} from './registers.ts';

/** A capability and its offset. @internal */
export interface Capability {
  readonly id: number;
  readonly offset: number;
}

/** The valid part of a chain. @internal */
export interface Chain {
  /** In chain order; in a broken chain, those before the invalid link. */
  readonly found: readonly Capability[];
  /** The error of the invalid link (`ERR_BAD_CONFIG_SPACE`); `undefined` for a valid chain. */
  readonly problem: PeerDmaError | undefined;
}

const EMPTY: Chain = { found: [], problem: undefined };

/** Walks the chain of conventional capabilities. @internal */
export function capabilities(image: ConfigImage): Chain {
  if ((image.u16(STATUS) & STATUS_CAP_LIST) === 0) return EMPTY;
  const type = image.u8(HEADER_TYPE) & HEADER_TYPE_MASK;
  if (type > HEADER_TYPE_CARDBUS) {
    return { found: [], problem: image.bad(HEADER_TYPE, `the header type ${type} is reserved`) };
  }
  const pointer = type === HEADER_TYPE_CARDBUS ? CAPABILITY_LIST_CARDBUS : CAPABILITY_LIST;
  const link = { from: pointer, next: image.u8(pointer) };
  return walk(image, link, [STD_HEADER_SIZEOF, CFG_SPACE_SIZE], (offset) => {
    const id = image.u8(offset);
    if (id === 0xff) return 'a capability reads as all ones';
    return { id, from: offset + CAP_LIST_NEXT, next: image.u8(offset + CAP_LIST_NEXT) };
  });
}

/** Walks the chain of extended capabilities. @internal */
export function extendedCapabilities(image: ConfigImage): Chain {
  if (image.size <= CFG_SPACE_SIZE) return EMPTY;
  // The chain is empty: neither 0 nor all ones (a device that does not respond) is a capability.
  const first = image.u32(CFG_SPACE_SIZE);
  if (first === 0 || first === 0xffffffff) return EMPTY;
  const link = { from: CFG_SPACE_SIZE, next: CFG_SPACE_SIZE };
  return walk(image, link, [CFG_SPACE_SIZE, CFG_SPACE_EXP_SIZE], (offset) => {
    const header = image.u32(offset);
    if (header === 0xffffffff) return 'an extended capability reads as all ones';
    return { id: header & 0xffff, from: offset + 2, next: header >>> 20 };
  });
}

interface Link {
  /** Offset of the pointer. */
  readonly from: number;
  /** The raw pointer; 0 in all bits except the reserved ones ends the chain. */
  readonly next: number;
}

/** @param follow reads the capability at an offset, or returns why it is invalid */
function walk(
  image: ConfigImage,
  first: Link,
  [start, end]: readonly [start: number, end: number],
  follow: (offset: number) => (Link & { readonly id: number }) | string,
): Chain {
  const found = new Map<number, Capability>();
  const chain = (problem?: PeerDmaError): Chain => ({ found: [...found.values()], problem });
  for (let link = first; ;) {
    const offset = link.next & CAP_POINTER_MASK;
    // The host may have truncated config space.
    if (offset === 0 || (offset >= image.size && offset < end)) return chain();
    const pointer = `the pointer to the next capability is ${at(offset)}, `;
    if (offset < start || offset >= end) {
      return chain(image.bad(link.from, `${pointer}which is outside ${at(start)}..${at(end)}`));
    }
    if (found.has(offset)) return chain(image.bad(link.from, `${pointer}which the chain has visited already`));
    const next = follow(offset);
    if (typeof next === 'string') return chain(image.bad(offset, next));
    found.set(offset, { id: next.id, offset });
    link = next;
  }
}

/**
 * Returns the length of an extended capability that is hidden from guests; `undefined` for all others.
 *
 * Hidden capabilities add or resize functions and BARs: the host controls those.
 *
 * @internal
 */
export function hiddenLength(image: ConfigImage, { id, offset }: Capability): number | undefined {
  switch (id) {
    case EXT_CAP_ID_ARI:
      return ARI_SIZEOF;
    case EXT_CAP_ID_SRIOV:
      return SRIOV_SIZEOF;
    case EXT_CAP_ID_REBAR:
    case EXT_CAP_ID_VF_REBAR: {
      if (offset + REBAR_CTRL >= image.size) {
        if (image.size < CFG_SPACE_EXP_SIZE) return image.size - offset; // the host has truncated config space
        throw image.bad(offset, 'a Resizable BAR capability passes the end');
      }
      const entries = (image.u8(offset + REBAR_CTRL) & REBAR_CTRL_NBAR_MASK) >> REBAR_CTRL_NBAR_SHIFT;
      return REBAR_CAP + REBAR_ENTRY_SIZE * Math.max(entries, 1);
    }
    default:
      return undefined;
  }
}

/** A byte range of one capability. @internal */
export interface Structure {
  readonly offset: number;
  readonly length: number;
}

/**
 * Requires that a structure is within its part of config space.
 *
 * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE`
 * @internal
 */
export function requireWithin(image: ConfigImage, { offset, length }: Structure, end: number): void {
  if (offset + length <= end) return;
  throw image.bad(offset, `the capability there has ${length} bytes, and passes the end of its space at ${at(end)}`);
}

/**
 * Requires that structures do not overlap: emulating one of them would change another.
 *
 * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE`
 * @internal
 */
export function requireDisjoint(image: ConfigImage, structures: readonly Structure[]): void {
  const sorted = structures.toSorted((a, b) => a.offset - b.offset);
  for (const [index, { offset, length }] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next === undefined || offset + length <= next.offset) continue;
    throw image.bad(
      next.offset,
      `a capability begins within the ${length} bytes of the one at ${at(offset)}`,
      'Both are emulated, so neither can be given to a guest: update the firmware of the device, or assign another one',
    );
  }
}
