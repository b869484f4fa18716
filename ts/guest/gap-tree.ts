/**
 * Gaps between ranges of addresses, as a persistent balanced tree (AVL): versions share subtrees. Each node records the
 * longest and the best aligned gap below it, so a search skips subtrees that are too short without reading them.
 */
import { AddressRange } from '../address-range.ts';

/** A tree; `undefined` is the empty one. @internal */
export type GapTree = GapNode | undefined;

interface Gap {
  readonly range: AddressRange;
  /** The exponent of the highest power of two that divides an address in the gap. */
  readonly alignment: number;
}

/** @internal */
export class GapNode {
  readonly left: GapTree;
  readonly gap: Gap;
  readonly right: GapTree;
  readonly height: number;
  /** Bytes of the longest gap. */
  readonly longest: bigint;
  /** An address in one of the gaps is a multiple of 2 to the power of this. */
  readonly alignment: number;

  constructor(left: GapTree, gap: Gap, right: GapTree) {
    this.left = left;
    this.gap = gap;
    this.right = right;
    this.height = 1 + Math.max(heightOf(left), heightOf(right));
    this.longest = longer(longer(gap.range.length, left?.longest), right?.longest);
    this.alignment = Math.max(gap.alignment, left?.alignment ?? 0, right?.alignment ?? 0);
  }

  /** Whether a gap of the tree may have so many bytes from a multiple of 2^alignment on. */
  mayHold(length: bigint, alignment: number): boolean {
    return this.longest >= length && this.alignment >= alignment;
  }
}

/** The tree with one more gap, which overlaps none of the tree. @internal */
export function insertGap(tree: GapTree, range: AddressRange): GapNode {
  return inserted(tree, { range, alignment: alignmentIn(range) });
}

function inserted(tree: GapTree, gap: Gap): GapNode {
  if (tree === undefined) return new GapNode(undefined, gap, undefined);
  return gap.range.start < tree.gap.range.start
    ? balanced(inserted(tree.left, gap), tree.gap, tree.right)
    : balanced(tree.left, tree.gap, inserted(tree.right, gap));
}

/** The tree without one of its gaps. @internal */
export function removeGap(tree: GapTree, range: AddressRange): GapTree {
  if (tree === undefined) return undefined;
  const { left, gap, right } = tree;
  if (range.start < gap.range.start) return balanced(removeGap(left, range), gap, right);
  if (range.start > gap.range.start) return balanced(left, gap, removeGap(right, range));
  if (left === undefined || right === undefined) return left ?? right;
  const next = first(right);
  return balanced(left, next, removeGap(right, next.range));
}

/** The gaps that share an address with a range, in order of address. @internal */
export function gapsIn(tree: GapTree, range: AddressRange): AddressRange[] {
  if (tree === undefined) return [];
  const { left, right } = tree;
  const gap = tree.gap.range;
  return [
    ...(gap.start > range.start ? gapsIn(left, range) : []),
    ...(gap.overlaps(range) ? [gap] : []),
    ...(gap.end < range.end ? gapsIn(right, range) : []),
  ];
}

/**
 * The lowest place in a gap.
 *
 * @param length bytes
 * @param alignment its start is a multiple of 2^alignment
 * @param within the place lies within this range
 * @internal
 */
export function lowestPlace(
  tree: GapTree,
  length: bigint,
  alignment: number,
  within: AddressRange,
): AddressRange | undefined {
  if (tree === undefined || !tree.mayHold(length, alignment)) return undefined;
  const { left, right } = tree;
  const gap = tree.gap.range;
  const below = gap.start > within.start ? lowestPlace(left, length, alignment, within) : undefined;
  if (below !== undefined) return below;
  const at = alignUp(gap.start > within.start ? gap.start : within.start, alignment);
  const end = gap.end < within.end ? gap.end : within.end;
  if (at + length <= end) return AddressRange.between(at, at + length);
  return gap.end < within.end ? lowestPlace(right, length, alignment, within) : undefined;
}

function alignUp(address: bigint, alignment: number): bigint {
  const bits = BigInt(alignment);
  return ((address + (1n << bits) - 1n) >> bits) << bits;
}

/** See {@link Gap.alignment}. */
function alignmentIn({ start, end }: AddressRange): number {
  if (start === 0n) return Infinity;
  // The bits from which on the address before the range and the last one in it differ.
  return ((start - 1n) ^ (end - 1n)).toString(2).length - 1;
}

function longer(a: bigint, b: bigint | undefined): bigint {
  return b !== undefined && b > a ? b : a;
}

function heightOf(tree: GapTree): number {
  return tree?.height ?? 0;
}

function first({ left, gap }: GapNode): Gap {
  return left === undefined ? gap : first(left);
}

/** A tree of parts whose heights differ by two at most. */
function balanced(left: GapTree, gap: Gap, right: GapTree): GapNode {
  if (left !== undefined && left.height > heightOf(right) + 1) {
    const { left: outer, right: inner } = left;
    if (inner === undefined || heightOf(outer) >= inner.height) {
      return new GapNode(outer, left.gap, new GapNode(inner, gap, right));
    }
    return new GapNode(new GapNode(outer, left.gap, inner.left), inner.gap, new GapNode(inner.right, gap, right));
  }
  if (right !== undefined && right.height > heightOf(left) + 1) {
    const { left: inner, right: outer } = right;
    if (inner === undefined || heightOf(outer) >= inner.height) {
      return new GapNode(new GapNode(left, gap, inner), right.gap, outer);
    }
    return new GapNode(new GapNode(left, gap, inner.left), inner.gap, new GapNode(inner.right, right.gap, outer));
  }
  return new GapNode(left, gap, right);
}
