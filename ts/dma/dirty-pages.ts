/**
 * The pages of guest memory that devices have written. A VMM copies them again during a live migration.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';

/** Logs the writes of the devices of one address space. @internal */
export interface DirtyTracker {
  /** Name in errors. */
  readonly name: string;
  /**
   * @param onUnmap receives the dirty pages of a mapping before it is unmapped, which clears the kernel's log of them,
   * or of a part of the log that is lost
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if the kernel or the IOMMU does not support it
   */
  startDirtyTracking(onUnmap: (pages: DirtyPages) => void): Promise<void>;
  stopDirtyTracking(): Promise<void>;
  /** Returns the pages of a mapping that were, or may have been, written since the last call. */
  readDirty(range: AddressRange): Promise<DirtyPages>;
}

/** Pages in a word of the bitmap. */
const WORD = 64n;
/** All pages of a word. */
const ALL_OF_WORD = 2n ** WORD - 1n;
/** The most pages that type1 accepts in one call (`DIRTY_BITMAP_PAGES_MAX`): 8 TiB in pages of 4 KiB. */
const MAX_PAGES = (1n << 31n) - 1n;
/** Pages in half a word. The code works on halves: a `bigint` for each word takes ten times as long. */
const HALF = 32;
/** All pages of half a word. */
const ALL = 0xffff_ffff;

/** A set of pages within a range of guest-physical addresses. */
export class DirtyPages {
  /** The addresses that the bitmap covers; whole pages. */
  readonly range: AddressRange;
  /** Bytes in a page. */
  readonly pageSize: bigint;
  /** One bit for each page. Bit 0 of word 0 is the first page. */
  readonly bitmap: BigUint64Array;
  /** The bitmap in halves: page 32 × n + m is bit m of half n. All supported platforms are little-endian. */
  readonly #halves: Uint32Array;
  /** Number of pages in the range. */
  readonly #pages: number;

  /**
   * @param bitmap default: no page is set
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` if the range has more than {@link MAX_PAGES} pages
   * @internal
   */
  constructor(range: AddressRange, pageSize: bigint, bitmap?: BigUint64Array) {
    this.range = range;
    this.pageSize = pageSize;
    this.bitmap = bitmap ?? emptyBitmap(range, pageSize);
    const { buffer, byteOffset, length } = this.bitmap;
    this.#halves = new Uint32Array(buffer, byteOffset, 2 * length);
    this.#pages = Number(range.length / pageSize);
  }

  /** Returns the set of all pages of a range. @internal */
  static all(range: AddressRange, pageSize: bigint): DirtyPages {
    const dirty = new DirtyPages(range, pageSize);
    dirty.bitmap.fill(ALL_OF_WORD);
    return dirty;
  }

  /**
   * Whether the set contains the page of an address.
   *
   * @param gpa guest-physical address, anywhere in the page
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if it is not a bigint
   */
  contains(gpa: bigint): boolean {
    requireBigint(gpa, 'gpa');
    if (gpa < this.range.start || gpa >= this.range.end) return false;
    const page = (gpa - this.range.start) / this.pageSize;
    return (((this.bitmap[Number(page / WORD)] ?? 0n) >> (page % WORD)) & 1n) === 1n;
  }

  /** Whether the set contains no page. */
  get isEmpty(): boolean {
    return !this.hasIn(this.range);
  }

  /** Number of pages in the set. */
  get count(): number {
    let count = 0;
    for (const bits of this.#halves) if (bits !== 0) count += bits === ALL ? HALF : ones(bits);
    return count;
  }

  /** Yields the pages as ranges, in order of address. Adjacent pages are one range. */
  *ranges(): Generator<AddressRange> {
    const range = (from: number, end: number): AddressRange => {
      const { start } = this.range;
      return AddressRange.between(start + BigInt(from) * this.pageSize, start + BigInt(end) * this.pageSize);
    };
    let from: number | undefined;
    for (let at = 0; at < this.#pages; at += HALF) {
      const bits = ((this.#halves[at / HALF] ?? 0) & inside(at / HALF, 0, this.#pages)) >>> 0;
      if (bits === ALL) from ??= at;
      else if (bits !== 0 || from !== undefined) {
        for (let page = at; page < at + HALF; page++) {
          if (((bits >>> (page - at)) & 1) === 1) from ??= page;
          else if (from !== undefined) {
            yield range(from, page);
            from = undefined;
          }
        }
      }
    }
    if (from !== undefined) yield range(from, this.#pages);
  }

  /** Whether the set contains a page of a range. @internal */
  hasIn(range: AddressRange): boolean {
    const { from, end } = this.#span(range);
    const halves = this.#halves;
    for (let half = Math.floor(from / HALF); half * HALF < end; half++) {
      const bits = halves[half] ?? 0;
      if (bits !== 0 && (bits & inside(half, from, end)) !== 0) return true;
    }
    return false;
  }

  /**
   * Adds the other set's pages that lie in the range of this one.
   *
   * @param within adds only the pages in this range; whole pages. Default: all
   * @internal
   */
  add(others: DirtyPages, within: AddressRange = others.range): void {
    const { first: shift, ...both } = this.#span(others.range);
    const part = this.#span(within);
    const [from, end] = [Math.max(both.from, part.from), Math.min(both.end, part.end)];
    const [into, source] = [this.#halves, others.#halves];
    // The other set's half that begins at or after the start of half 0 here, and its distance in pages.
    const by = ((shift % HALF) + HALF) % HALF;
    const offset = (by - shift) / HALF;
    for (let half = Math.floor(from / HALF); half * HALF < end; half++) {
      let bits = source[half + offset] ?? 0;
      if (by !== 0) bits = (bits << by) | ((source[half + offset - 1] ?? 0) >>> (HALF - by));
      if (bits !== 0) into[half] = (into[half] ?? 0) | (bits & inside(half, from, end));
    }
  }

  /** Removes the pages of a range. @internal */
  remove(range: AddressRange): void {
    const { from, end } = this.#span(range);
    const halves = this.#halves;
    for (let half = Math.floor(from / HALF); half * HALF < end; half++) {
      halves[half] = (halves[half] ?? 0) & ~inside(half, from, end);
    }
  }

  /** The pages of this set that a range of whole pages shares. The range's own first page, `first`, may be negative. */
  #span({ start, length }: AddressRange): { from: number; end: number; first: number } {
    const first = Number((start - this.range.start) / this.pageSize);
    const end = Math.min(this.#pages, first + Number(length / this.pageSize));
    return { from: Math.max(0, first), end, first };
  }
}

function emptyBitmap(range: AddressRange, pageSize: bigint): BigUint64Array {
  const pages = range.length / pageSize;
  if (pages > MAX_PAGES) {
    const text = `${range} has ${pages} pages, and a bitmap at most ${MAX_PAGES}. Read the range in parts`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { range });
  }
  return new BigUint64Array(Number((pages + WORD - 1n) / WORD));
}

/** The bits of a half for the pages from `from` to before `end`. */
function inside(half: number, from: number, end: number): number {
  const start = half * HALF;
  if (from <= start && start + HALF <= end) return ALL;
  const low = from <= start ? ALL : ALL << (from - start);
  return start + HALF <= end ? low : low & (ALL >>> (start + HALF - end));
}

/** How many bits of 32 are set. */
function ones(bits: number): number {
  let sum = bits - ((bits >>> 1) & 0x5555_5555);
  sum = (sum & 0x3333_3333) + ((sum >>> 2) & 0x3333_3333);
  return Math.imul((sum + (sum >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
