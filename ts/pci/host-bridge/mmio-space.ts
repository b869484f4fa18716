/** Guest accesses to memory space that trap to the VMM: ECAM, and BARs by their addresses. */
import { AddressRange } from '../../address-range.ts';
import { CFG_SPACE_EXP_SIZE } from '../config/registers.ts';
import { allOnes } from '../pci-fault.ts';
import { type Pending, inTurn } from '../pending.ts';
import type { AttachedFunction } from './attached-function.ts';
import type { ConfigAccesses } from './config-accesses.ts';
import type { FunctionAddress } from './function-address.ts';
import type { FunctionTable } from './function-table.ts';
import { type OrderedAccesses, runAfter } from './ordered-accesses.ts';

/** Bits of an offset within ECAM: of a register, then of a function. PCI Express Base, 7.2.2. */
const REGISTER_BITS = 12n;
const REGISTER_MASK = BigInt(CFG_SPACE_EXP_SIZE - 1);

/** A part of an access: of one function's config space, or outside of ECAM. */
interface Piece {
  /** Index of its first byte in the access. */
  readonly at: number;
  readonly length: number;
  readonly gpa: bigint;
  /** The function that ECAM selects; `undefined` outside of ECAM. */
  readonly config?: { readonly address: FunctionAddress; readonly offset: number };
}

/** @internal */
export class MmioSpace {
  readonly #ecam: AddressRange | undefined;
  readonly #functions: FunctionTable;
  readonly #config: ConfigAccesses;

  constructor(ecam: AddressRange | undefined, functions: FunctionTable, config: ConfigAccesses) {
    this.#ecam = ecam;
    this.#functions = functions;
    this.#config = config;
  }

  /** @param range of an access */
  read(range: AddressRange): Pending<Uint8Array> {
    const pieces = this.#pieces(range);
    const [only] = pieces;
    if (only !== undefined && pieces.length === 1) return this.#readPiece(only);
    const bytes = allOnes(Number(range.length));
    const read = inTurn(pieces.values(), (piece) => {
      const part = this.#readPiece(piece);
      if (part instanceof Promise) return part.then((late) => bytes.set(late, piece.at));
      return bytes.set(part, piece.at);
    });
    return read instanceof Promise ? read.then(() => bytes) : bytes;
  }

  /** @param range of an access @param bytes not changed by the caller until the write has taken effect */
  write(range: AddressRange, bytes: Uint8Array): Pending<void> {
    return inTurn(this.#pieces(range).values(), (piece) =>
      this.#writePiece(piece, bytes.subarray(piece.at, piece.at + piece.length)),
    );
  }

  #readPiece({ gpa, length, config }: Piece): Pending<Uint8Array> {
    if (config !== undefined) return this.#config.read(config.address, config.offset, length);
    return runAfter(this.#writesBefore(gpa, length), () => this.#readBars(gpa, length));
  }

  #writePiece({ gpa, length, config }: Piece, bytes: Uint8Array): Pending<void> {
    if (config !== undefined) return this.#config.write(config.address, config.offset, bytes);
    return runAfter(this.#writesBefore(gpa, length), () => this.#writeBars(gpa, bytes));
  }

  #readBars(gpa: bigint, length: number): Uint8Array {
    const owner = this.#ownerOf(gpa, length);
    if (owner !== undefined) return owner.mmioRead(gpa, length);
    const bytes = allOnes(length);
    for (const { owner: each, start, at, length: count } of this.#parts(gpa, length)) {
      bytes.set(each.mmioRead(start, count), at);
    }
    return bytes;
  }

  #writeBars(gpa: bigint, bytes: Uint8Array): Pending<void> {
    const owner = this.#ownerOf(gpa, bytes.length);
    if (owner !== undefined) return owner.accesses.track(owner.mmioWrite(gpa, bytes));
    return inTurn(this.#parts(gpa, bytes.length).values(), ({ owner: each, start, at, length }) =>
      each.accesses.track(each.mmioWrite(start, bytes.subarray(at, at + length))),
    );
  }

  /** Returns the function that decodes a whole access: the usual one, which is not split. */
  #ownerOf(gpa: bigint, length: number): AttachedFunction | undefined {
    const found = this.#functions.bars.at(gpa);
    return found !== undefined && gpa + BigInt(length) <= found.range.end ? found.owner : undefined;
  }

  /**
   * Returns the functions whose config writes in flight can change what an access reaches.
   *
   * A BAR at these addresses may move away; at addresses without a BAR, one of any function may appear.
   */
  #writesBefore(gpa: bigint, length: number): OrderedAccesses[] {
    const { inFlight } = this.#functions;
    if (inFlight.size === 0) return [];
    const parts = this.#parts(gpa, length);
    const decoded = parts.reduce((sum, part) => sum + part.length, 0);
    if (decoded < length) return [...inFlight];
    const owners = new Set(parts.map(({ owner }) => owner.accesses));
    return [...owners].filter((accesses) => inFlight.has(accesses));
  }

  /** Returns the parts of an access that BARs decode. */
  #parts(gpa: bigint, length: number) {
    const access = AddressRange.of(gpa, BigInt(length));
    return this.#functions.bars.overlapping(access).map(({ owner, range }) => {
      const start = range.start > gpa ? range.start : gpa;
      const end = range.end < access.end ? range.end : access.end;
      return { owner, start, at: Number(start - gpa), length: Number(end - start) };
    });
  }

  /** Splits an access at the bounds of ECAM, and there between functions. ECAM precedes BARs over it. */
  #pieces({ start, end }: AddressRange): Piece[] {
    const pieces: Piece[] = [];
    for (let gpa = start; gpa < end;) {
      const piece = this.#pieceAt(gpa, end, Number(gpa - start));
      pieces.push(piece);
      gpa += BigInt(piece.length);
    }
    return pieces;
  }

  #pieceAt(gpa: bigint, end: bigint, at: number): Piece {
    const ecam = this.#ecam;
    if (ecam === undefined || !ecam.contains(gpa)) {
      const stop = ecam !== undefined && gpa < ecam.start && ecam.start < end ? ecam.start : end;
      return { at, gpa, length: Number(stop - gpa) };
    }
    const within = gpa - ecam.start;
    const offset = Number(within & REGISTER_MASK);
    const length = Math.min(Number(end - gpa), CFG_SPACE_EXP_SIZE - offset);
    return { at, gpa, length, config: { address: Number(within >> REGISTER_BITS), offset } };
  }
}
