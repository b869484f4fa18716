/**
 * The memory that a target accepts, by the kind of its region, by its backing and by the access to it.
 */
import { readOptions, requireBoolean } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { SubMapping } from './sub-mapping.ts';

/** The memory that a {@link DmaTarget} accepts. It is not called for other memory. */
export interface AcceptedMemory {
  /**
   * The kinds of regions whose memory the target receives. Memory of the other kind is skipped.
   * Default: `both`
   */
  readonly kinds?: 'ram' | 'device' | 'both';
  /**
   * The backings that the target can map. RAM with another backing is an error before it is allocated; device memory is
   * skipped, or an error with `peerToPeer: 'required'`. Default: `any`
   *
   * - `any`: files and private memory
   * - `file`: files, also those of a VFIO device
   * - `shareable`: regular files, which another process can map by a descriptor: those of {@link MemoryFile.create},
   *   of tmpfs, hugetlbfs or a disk. The memory of a device and dma-bufs are not
   */
  readonly backing?: 'any' | 'file' | 'shareable';
  /**
   * Whether the target can map memory that its device may only read, such as a ROM. Without this, such memory is
   * skipped. Default: `true`
   */
  readonly readOnly?: boolean;
}

/** @internal */
export const ALL_MEMORY: Required<AcceptedMemory> = { kinds: 'both', backing: 'any', readOnly: true };

const KINDS: readonly unknown[] = ['ram', 'device', 'both'];
const BACKINGS: readonly unknown[] = ['any', 'file', 'shareable'];

/**
 * Checks and copies `accepts` of a target.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function readAccepted(accepts: unknown, target: string): Required<AcceptedMemory> {
  if (accepts === undefined) return ALL_MEMORY;
  const given = readOptions(accepts as AcceptedMemory, ['kinds', 'backing', 'readOnly'], `accepts of ${target}`);
  const { kinds, backing, readOnly } = { ...ALL_MEMORY, ...given };
  if (!KINDS.includes(kinds)) throw invalid(`accepts.kinds of ${target} is ${listText(KINDS)}`, kinds);
  if (!BACKINGS.includes(backing)) throw invalid(`accepts.backing of ${target} is ${listText(BACKINGS)}`, backing);
  requireBoolean(readOnly, `accepts.readOnly of ${target}`);
  return { kinds, backing, readOnly };
}

/** Whether a target with that trait can map the backing of a sub-mapping. @internal */
export function acceptsBacking(backing: Required<AcceptedMemory>['backing'], { memory }: SubMapping): boolean {
  if (backing === 'any') return true;
  return memory.file !== undefined && (backing === 'file' || memory.file.isShareable);
}

function listText(values: readonly unknown[]): string {
  return values.map((value) => `'${String(value)}'`).join(', ');
}

function invalid(expected: string, value: unknown): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `${expected}, not ${valueText(value)}`);
}
