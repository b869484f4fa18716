/**
 * The bytes of unplugged blocks: those that are discarded, and those of a caller's file that are kept.
 */
import { AddressRange } from '../address-range.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { type MemorySlice, type UndiscardedPart, discardMemory } from '../memory/backing.ts';
import { RangeSet } from '../range-set.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { quarantinesOf } from './quarantine.ts';

/** Memory that a sub-mapping has in common with the RAM. */
interface SharedPart {
  /** Offsets in the RAM. */
  readonly part: AddressRange;
  readonly sub: SubMapping;
  /** Why a target may still reach it, if it is in quarantine. */
  readonly quarantine?: PeerDmaError;
}

/** @internal */
export class UnpluggedBytes {
  readonly #space: GuestAddressSpace;
  readonly #region: { readonly id: number; readonly length: bigint };
  /** Offsets of a caller's file that were never unplugged: nothing discards them. */
  readonly #kept = new RangeSet();
  /** Offsets that are to be discarded, and have not been yet. */
  readonly #due = new RangeSet();

  /** @param ofCaller whether the memory is a file of the caller */
  constructor(space: GuestAddressSpace, region: { readonly id: number; readonly length: bigint }, ofCaller: boolean) {
    this.#space = space;
    this.#region = region;
    if (ofCaller) this.#kept.add(AddressRange.between(0n, region.length));
  }

  /** The offsets among these whose bytes nobody keeps: they read as zeros when they are plugged. */
  zeroed(offsets: readonly AddressRange[]): AddressRange[] {
    return this.#kept.missingFrom(offsets);
  }

  /** Records that blocks were unplugged: their bytes are not kept any more. */
  release(offsets: readonly AddressRange[]): void {
    for (const one of offsets) {
      this.#kept.delete(one);
      this.#due.add(one);
    }
  }

  /**
   * Rejects blocks whose bytes another mapping has.
   *
   * Devices may have its pages pinned, and would access other memory than the guest once they are discarded.
   *
   * @throws {PeerDmaError} `ERR_MEMORY_IN_USE`, `ERR_RANGE_QUARANTINED`
   */
  requireUnshared(memory: MemorySlice, offsets: readonly AddressRange[]): void {
    for (const { part, sub, quarantine } of this.#shared(memory)) {
      if (!offsets.some((one) => one.overlaps(part))) continue;
      if (quarantine !== undefined) throw quarantine;
      const { name, range } = sub;
      const text = `"${name}" at ${range} has the bytes of these blocks, which would be discarded. Unmap it first.`;
      throw new PeerDmaError('ERR_MEMORY_IN_USE', text, { range });
    }
  }

  /**
   * Discards the bytes of unplugged blocks, and of those for which that has failed before. Bytes that another mapping
   * has are left for a later call.
   *
   * @returns the failures
   */
  async discard(memory: MemorySlice, offsets: readonly AddressRange[]): Promise<UndiscardedPart[]> {
    for (const one of offsets) this.#due.add(one);
    const unshared = new RangeSet(this.#due.values());
    for (const { part } of this.#shared(memory)) unshared.delete(part);
    const parts = unshared.values();
    if (parts.length === 0) return [];
    this.#space.sweepHostView(); // mapped memory cannot be discarded
    const failures = await discardMemory(memory, parts);
    for (const part of parts) this.#due.delete(part);
    for (const { part } of failures) this.#due.add(part);
    return failures;
  }

  /** The memory that other regions and quarantined sub-mappings have in common with the RAM. */
  #shared(memory: MemorySlice): SharedPart[] {
    const { byFile, mappers } = this.#space;
    const { id, length } = this.#region;
    const others = memory.file === undefined ? [] : byFile.inOtherRegions(memory.file, id);
    return [...others.map((sub) => ({ sub })), ...quarantinesOf(mappers, memory)].flatMap((one) => {
      const { range, memory: other } = one.sub;
      const start = other.offset - memory.offset;
      const end = start + range.length;
      if (end <= 0n || start >= length) return [];
      return { ...one, part: AddressRange.between(start < 0n ? 0n : start, end > length ? length : end) };
    });
  }
}
