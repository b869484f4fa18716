/**
 * Changes of a device while its memory is mapped: a reset, memory decode off and on. They revoke the mappings of IOMMUs
 * that have the memory as dma-bufs; these are unmapped before and mapped again after.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus } from '../dma/target.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import { isDevice } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { catchUp } from './catch-up.ts';
import { quarantineFor } from './quarantine.ts';
import { transaction } from './transaction.ts';

/** The status of a range of device memory before {@link DmaMapperHandle.refresh} and after it. */
export interface RefreshedMapping extends MappingStatus {
  /** The state before. `revoked` if this process has revoked it, for example by a reset of the device. */
  readonly before: 'mapped' | 'revoked' | 'failed' | 'quarantined';
}

/**
 * Unmaps device memory from all targets, calls `act`, and maps the memory again, even if `act` throws.
 *
 * @throws the error of an unmap, before `act` is called; the error of `act`; the error of a target that requires the
 * memory and cannot map it again
 * @internal
 */
export async function runWhileUnmapped(
  subs: readonly SubMapping[],
  mappers: ReadonlySet<DmaMapper>,
  act: () => void | Promise<void>,
): Promise<void> {
  const taken: { readonly mapper: DmaMapper; readonly mapAgain: () => Promise<PeerDmaError[]> }[] = [];
  await transaction(async (undo) => {
    for (const mapper of mappers) {
      const unmapped = await mapper.unmap(subs);
      const mapAgain = () => mapper.undoUnmap(unmapped, (sub) => quarantineFor(mapper, sub, mappers));
      taken.push({ mapper, mapAgain });
      undo.push(mapAgain);
    }
    await act();
  });
  const missing: PeerDmaError[] = [];
  for (const { mapper, mapAgain } of taken.toReversed()) {
    const problems = await mapAgain();
    if (subs.some((sub) => mapper.requires(sub))) missing.push(...problems);
  }
  throwIf(missing[0]); // at the end: the failure of one target does not keep the others from mapping it
}

/**
 * Maps to each target the sub-mappings that it misses, each by itself. The failure of one does not affect the others.
 * The status of a target reports failures.
 *
 * @internal
 */
export async function retryDeviceMemory(
  subs: readonly SubMapping[],
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<void> {
  for (const sub of subs) await catchUp([sub], mappers, mappers, va, ignoringErrors);
}

/** Maps all device memory of one target anew. @internal */
export async function refreshDevices(
  mapper: DmaMapper,
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<RefreshedMapping[]> {
  const found: RefreshedMapping[] = [];
  for (const sub of mapper.deviceMemory()) {
    const was = mapper.status.of(sub);
    if (was === undefined) continue; // removed: an earlier one could not be unmapped
    if (was.state !== 'mapped') {
      await catchUp([sub], [mapper], mappers, va, ignoringErrors);
    } else if (mapper.mapsFile(sub) && quarantineFor(mapper, sub, mappers) === undefined) {
      // An IOMMU does not report that a mapping was revoked: each that can be is mapped again.
      await ignoringErrors(() => mapper.renew(sub));
    }
    const before = was.code === 'ERR_MAPPING_REVOKED' ? 'revoked' : was.state === 'mapped' ? 'mapped' : 'failed';
    found.push({ ...(mapper.status.of(sub) ?? quarantinedAt(mapper, sub) ?? was), before });
  }
  return [...found, ...quarantinedBeside(mapper, found)].sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
}

function quarantinedAt(mapper: DmaMapper, sub: SubMapping): MappingStatus | undefined {
  const failure = mapper.quarantined.startingAt(sub.range.start);
  return failure?.sub === sub ? mapper.status.quarantined(failure) : undefined;
}

/** Device memory in quarantine that none of the refreshed mappings reports. */
function quarantinedBeside(mapper: DmaMapper, found: readonly RefreshedMapping[]): RefreshedMapping[] {
  const all = mapper.quarantined.values().filter(({ sub }) => isDevice(sub.memory));
  const beside = all.filter(({ range }) => !found.some((one) => one.range.equals(range)));
  return beside.map((failure) => ({ ...mapper.status.quarantined(failure), before: 'quarantined' }));
}

/** Calls `act`, and ignores its error: the target's status or quarantine has it. */
async function ignoringErrors(act: () => void | Promise<void>): Promise<void> {
  try {
    await act();
  } catch {
    // in the target's status
  }
}
