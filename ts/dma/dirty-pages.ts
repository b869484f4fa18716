/**
 * Which pages of guest memory devices have written: what a VMM copies again when it moves a guest to another machine.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';

/** Logs the writes of the devices of one address space. @internal */
export interface DirtyTracker {
  /** For messages. */
  readonly name: string;
  /**
   * @param onUnmap gets the pages of a mapping that is about to be unmapped, as the kernel forgets them then
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` where the kernel or the IOMMU can't
   */
  startDirtyTracking(onUnmap: (pages: DirtyPages) => void): Promise<void>;
  stopDirtyTracking(): Promise<void>;
  /** The pages of a mapping that were, or may have been, written since the last call. */
  readDirty(range: AddressRange): Promise<DirtyPages>;
}

/** Pages of a word of the bitmap. */
const WORD = 64n;
/** All pages of a word. */
const ALL = (1n << WORD) - 1n;
/** The most pages of a bitmap: what type1 takes at once (`DIRTY_BITMAP_PAGES_MAX`), 8 TiB in pages of 4 KiB. */
const MOST_PAGES = (1n << 31n) - 1n;

/** A set of pages within a range of guest-physical addresses. */
export class DirtyPages {
  /** The addresses that were asked about; whole pages. */
  readonly range: AddressRange;
  /** Bytes of a page. */
  readonly pageSize: bigint;
  /** A bit for each page, bit 0 of word 0 the first. */
  readonly bitmap: BigUint64Array;

  /**
   * @param bitmap none for no pages yet
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` for more pages than a bitmap may have
   * @internal
   */
  constructor(range: AddressRange, pageSize: bigint, bitmap?: BigUint64Array) {
    this.range = range;
    this.pageSize = pageSize;
    this.bitmap = bitmap ?? emptyBitmap(range, pageSize);
  }

  /**
   * Whether the page that has this address is among them.
   *
   * @param gpa guest-physical address, anywhere in the page
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is not a bigint
   */
  has(gpa: bigint): boolean {
    if (typeof gpa !== 'bigint') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `an address is a bigint, not ${valueText(gpa)}`);
    }
    if (gpa < this.range.start || gpa >= this.range.end) return false;
    const page = (gpa - this.range.start) / this.pageSize;
    return (((this.bitmap[Number(page / WORD)] ?? 0n) >> (page % WORD)) & 1n) === 1n;
  }

  /** Whether there are none. */
  get isEmpty(): boolean {
    return this.bitmap.every((word) => word === 0n);
  }

  /** How many pages there are. */
  get count(): number {
    let count = 0;
    for (let word of this.bitmap) {
      if (word === ALL) count += Number(WORD);
      else for (; word !== 0n; word &= word - 1n) count++;
    }
    return count;
  }

  /** The pages as ranges, those that adjoin as one, in order of address. */
  *ranges(): Generator<AddressRange> {
    const { range, pageSize } = this;
    let from: bigint | undefined;
    const last = this.bitmap.length - 1;
    // By words: most of a large range is all clean or all dirty.
    for (const [index, bits] of this.bitmap.entries()) {
      if (bits === 0n && from === undefined) continue;
      const at = range.start + BigInt(index) * WORD * pageSize;
      const word = index < last ? bits : bits & mask(0n, (range.end - at) / pageSize);
      if (word === ALL) from ??= at;
      else if (word === 0n) {
        if (from !== undefined) yield AddressRange.between(from, at);
        from = undefined;
      } else {
        for (let bit = 0n; bit < WORD; bit++) {
          const gpa = at + bit * pageSize;
          if (((word >> bit) & 1n) === 1n) from ??= gpa;
          else if (from !== undefined) {
            yield AddressRange.between(from, gpa);
            from = undefined;
          }
        }
      }
    }
    if (from !== undefined) yield AddressRange.between(from, range.end);
  }

  /** Adds those of the others that are in this range. @internal */
  add(others: DirtyPages): void {
    const shift = (others.range.start - this.range.start) / this.pageSize;
    const pages = this.range.length / this.pageSize;
    // The words of the others that have bits for here.
    const first = shift < 0n ? Number(-shift / WORD) : 0;
    const end = Math.min(others.bitmap.length, Number((pages - shift + WORD - 1n) / WORD));
    for (let index = first; index < end; index++) {
      const word = others.bitmap[index] ?? 0n;
      if (word === 0n) continue;
      // Where its first page is here: before the start, for a word that begins there.
      const at = shift + BigInt(index) * WORD;
      const into = at < 0n ? 0n : at / WORD;
      const bits = at < 0n ? word >> -at : word << (at % WORD);
      this.#or(into, BigInt.asUintN(64, bits));
      this.#or(into + 1n, bits >> WORD);
    }
  }

  /** Takes those away that are in a range. @internal */
  remove(range: AddressRange): void {
    const page = (gpa: bigint): bigint => (gpa - this.range.start) / this.pageSize; // of whole pages
    const [first, end] = [page(range.start), page(range.end)];
    for (const [index, word] of this.bitmap.entries()) {
      const at = BigInt(index) * WORD;
      if (word !== 0n) this.bitmap[index] = word & ~mask(first - at, end - at);
    }
  }

  #or(index: bigint, bits: bigint): void {
    const within = bits & mask(0n, this.range.length / this.pageSize - index * WORD);
    if (within === 0n) return;
    this.bitmap[Number(index)] = (this.bitmap[Number(index)] ?? 0n) | within;
  }
}

function emptyBitmap(range: AddressRange, pageSize: bigint): BigUint64Array {
  const pages = range.length / pageSize;
  if (pages > MOST_PAGES) {
    const text = `${range} has ${pages} pages, and a bitmap at most ${MOST_PAGES}. Ask for parts of the range`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { range });
  }
  return new BigUint64Array(Number((pages + WORD - 1n) / WORD));
}

/** The bits of a word from `first` to before `end`, of which either may lie outside of the word. */
function mask(first: bigint, end: bigint): bigint {
  const [from, to] = [first < 0n ? 0n : first, end > WORD ? WORD : end];
  return to <= from ? 0n : ((1n << (to - from)) - 1n) << from;
}
