/**
 * What a device goes through while its memory is mapped: a reset, memory decode off and on. IOMMUs that have its memory as
 * dma-bufs lose it then, and get it anew.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { Held } from '../dma/holdings.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus } from '../dma/target.ts';
import { throwIf } from '../errors.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { type Step, applyPlan } from './plan.ts';
import { catchUp, quarantineFor } from './steps.ts';

/** What {@link DmaMapperHandle.refresh} found of a stretch of device memory, and what it is now. */
export interface RefreshedMapping extends MappingStatus {
  /** How it was: `revoked` where this process has made it void, by a reset of the device and the like. */
  readonly before: 'mapped' | 'revoked' | 'failed' | 'quarantined';
}

/** Those sub-mappings that show the memory of devices. @internal */
export function subMappingsOf(flat: readonly SubMapping[], files: readonly MemoryFile[]): SubMapping[] {
  return flat.filter(({ store }) => store.file !== undefined && files.includes(store.file));
}

/**
 * Does something to devices while no target has their memory, and gives it back then, whether that worked or not.
 *
 * @throws what could not be unmapped: nothing was done then; what `act` threw; what a target can't have again that has to
 * @internal
 */
export async function withoutMappings(
  subs: readonly SubMapping[],
  mappers: ReadonlySet<DmaMapper>,
  act: () => void | Promise<void>,
): Promise<void> {
  const taken: { readonly mapper: DmaMapper; readonly gone: readonly Held[] }[] = [];
  const giveBack = ({ mapper, gone }: (typeof taken)[number]) =>
    mapper.restore(gone, (sub) => quarantineFor(mapper, sub, mappers));
  const taking = [...mappers].map((mapper): Step => {
    let entry: (typeof taken)[number] | undefined;
    return {
      run: async () => {
        entry = { mapper, gone: await mapper.unmap(subs) };
        taken.push(entry);
      },
      undo: () => (entry === undefined ? [] : giveBack(entry)),
    };
  });
  await applyPlan([...taking, { run: act, undo: () => {} }]);
  const problems: Error[] = [];
  for (const entry of taken.toReversed()) {
    const missing = await giveBack(entry);
    if (subs.some((sub) => entry.mapper.requires(sub))) problems.push(...missing);
  }
  throwIf(problems[0]); // when all have been asked: one that refuses keeps none from having it
}

/** Gives each target what it misses of these, as far as it takes it. What it does not is in its status. @internal */
export async function giveMissing(
  subs: readonly SubMapping[],
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<void> {
  for (const sub of subs) {
    for (const { run } of catchUp([sub], mappers, va)) {
      try {
        await run();
      } catch {
        // on record
      }
    }
  }
}

/** Maps all device memory of one target anew. @internal */
export async function refreshDevices(
  mapper: DmaMapper,
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<RefreshedMapping[]> {
  const found: RefreshedMapping[] = [];
  for (const { sub } of mapper.deviceMemory()) {
    const [was] = statusAt(mapper, sub);
    const before = was?.code === 'ERR_MAPPING_REVOKED' ? 'revoked' : was?.state;
    if (before === undefined || before === 'skipped') continue;
    if (before === 'failed') await giveMissing([sub], mappers, va);
    else if (before !== 'quarantined' && mapper.mapsFile(sub)) await renew(mapper, sub, mappers);
    for (const status of statusAt(mapper, sub)) found.push({ ...status, before });
  }
  return found;
}

/** An IOMMU that has lost a mapping does not say so: all that can be lost is mapped anew. */
async function renew(mapper: DmaMapper, sub: SubMapping, mappers: ReadonlySet<DmaMapper>): Promise<void> {
  if (quarantineFor(mapper, sub, mappers) !== undefined) return;
  try {
    await mapper.renew(sub);
  } catch {
    // on record
  }
}

function statusAt(mapper: DmaMapper, { range }: SubMapping): MappingStatus[] {
  return mapper.status().filter((status) => status.range.equals(range));
}
