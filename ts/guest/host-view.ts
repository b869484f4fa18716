/**
 * Maps and faults in the memory that targets map by host virtual address.
 */
import { AddressRange } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import { type SubMapping, isFaultedIn } from '../dma/sub-mapping.ts';
import { throwIf } from '../errors.ts';
import { faultInMemory } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { runsOf } from './adjoining.ts';
import { quarantineAgainst } from './quarantine.ts';

/** Some of the targets, or all. @internal */
export type Mappers = readonly DmaMapper[] | ReadonlySet<DmaMapper>;

/**
 * Returns the sub-mappings that a target maps by host virtual address.
 *
 * The others are mapped in this process when such a target joins.
 *
 * @internal
 */
export function mappedByHostAddress(subs: readonly SubMapping[], mappers: Mappers): readonly SubMapping[] {
  const joined = [...mappers].filter((mapper) => mapper.joined);
  const isMapped = (sub: SubMapping): boolean => joined.some((mapper) => mapper.usesHostAddress(sub));
  return subs.every(isMapped) ? subs : subs.filter(isMapped);
}

/**
 * Whether a change fails that cannot map a sub-mapping in this process.
 *
 * It does if a target requires the sub-mapping by host virtual address.
 *
 * @internal
 */
export function isRequiredByHostAddress(sub: SubMapping, mappers: Mappers): boolean {
  for (const mapper of mappers) if (mapper.joined && mapper.usesHostAddress(sub) && mapper.requires(sub)) return true;
  return false;
}

/**
 * Maps those of the sub-mappings that are not in the host view.
 *
 * A rollback could not map them again, or they were missed. They stay mapped if a later step fails.
 *
 * @param due what the targets concerned map by host virtual address
 * @param concerned the targets that are to have them
 * @param mappers all targets, for their quarantine
 * @throws {PeerDmaError} the error of a sub-mapping that a target requires; some of the others may be mapped
 * @internal
 */
export async function mapMissing(
  due: readonly SubMapping[],
  concerned: Mappers,
  mappers: Mappers,
  va: VaMapper,
): Promise<void> {
  const missing = due.filter((sub) => !sub.isInHostView);
  if (missing.length === 0) return;
  const required: SubMapping[] = [];
  const others: SubMapping[] = [];
  for (const sub of missing) (isRequiredByHostAddress(sub, concerned) ? required : others).push(sub);
  for (const sub of required) throwIf(quarantineAgainst(mappers, sub));
  if (required.length > 0) await va.mapAll(required);
  for (const sub of others) {
    await mapOrRecordFailure(sub, va, () => throwIf(quarantineAgainst(mappers, sub)));
  }
}

/**
 * Maps a sub-mapping that no target requires, and faults it in by itself. If that fails, it is recorded as missed.
 *
 * @param check throws if the sub-mapping must not be mapped
 * @internal
 */
export async function mapOrRecordFailure(sub: SubMapping, va: VaMapper, check: () => void = () => {}): Promise<void> {
  try {
    check();
    va.map(sub);
    if (isFaultedIn(sub)) await va.ensureMapped([sub.range]);
  } catch (why) {
    va.recordFailure(sub, why);
  }
}

/** Faults in host memory for targets that require it and do not fault it in themselves. @internal */
export function faultIn(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper): void | Promise<void> {
  const others = [...mappers].filter((mapper) => !mapper.faultsIn);
  if (others.length === 0) return;
  const due = subs.filter((sub) => isFaultedIn(sub) && isRequiredByHostAddress(sub, others));
  return due.length === 0 ? undefined : va.ensureMapped(due.map(({ range }) => range));
}

/** Faults in files that the kernel would allocate with other pages than requested. @internal */
export async function faultInFiles(subs: readonly SubMapping[], mappers: Mappers): Promise<void> {
  const due = subs.filter((sub) => {
    const { kind, memory } = sub;
    if (kind !== 'ram' || memory.file === undefined || !memory.faultInFirst) return false;
    return [...mappers].some((mapper) => mapper.mapsFile(sub));
  });
  for (const run of runsOf(due, isContinuedInFile)) {
    const [{ memory }] = run as [SubMapping];
    const length = run.reduce((sum, { range }) => sum + range.length, 0n);
    await faultInMemory(memory, [AddressRange.between(0n, length)]);
  }
}

function isContinuedInFile({ memory, range }: SubMapping, next: SubMapping): boolean {
  return memory.file === next.memory.file && memory.offset + range.length === next.memory.offset;
}
