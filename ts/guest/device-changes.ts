/**
 * What a device goes through while its memory is mapped: a reset, memory decode off and on. IOMMUs that have its memory as
 * dma-bufs lose it then, and get it anew.
 */
import type { DmaMapper, UnmappedSub } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus } from '../dma/target.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import { isDevice } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { type Step, applyPlan } from './plan.ts';
import { catchUp, catchUpOne, quarantineFor } from './steps.ts';

/** What {@link DmaMapperHandle.refresh} found of a stretch of device memory, and what it is now. */
export interface RefreshedMapping extends MappingStatus {
  /** How it was: `revoked` where this process has made it void, by a reset of the device and the like. */
  readonly before: 'mapped' | 'revoked' | 'failed' | 'quarantined';
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
  const taken: { readonly mapper: DmaMapper; readonly gone: readonly UnmappedSub[] }[] = [];
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
  const missing: PeerDmaError[] = [];
  for (const entry of taken.toReversed()) {
    const problems = await giveBack(entry);
    if (subs.some((sub) => entry.mapper.requires(sub))) missing.push(...problems);
  }
  throwIf(missing[0]); // when all have been asked: one that refuses keeps none from having it
}

/**
 * Gives each target what it misses of these, as far as it takes it: each by itself, as one that is refused says nothing of the
 * others. What it does not take is in its status.
 *
 * @internal
 */
export async function giveMissing(
  subs: readonly SubMapping[],
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<void> {
  for (const sub of subs) for (const step of catchUp([sub], mappers, va)) await attempt(step.run);
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
    if (was === undefined) continue; // gone, because something before it could not be unmapped
    if (was.state !== 'mapped') {
      for (const step of catchUpOne(mapper, sub, mappers, va)) await attempt(step.run);
    } else if (mapper.mapsFile(sub) && quarantineFor(mapper, sub, mappers) === undefined) {
      // An IOMMU that has lost a mapping does not say so: all that can be lost is mapped anew.
      await attempt(() => mapper.renew(sub));
    }
    const before = was.code === 'ERR_MAPPING_REVOKED' ? 'revoked' : was.state === 'mapped' ? 'mapped' : 'failed';
    found.push({ ...(mapper.status.of(sub) ?? quarantinedAt(mapper, sub) ?? was), before });
  }
  return [...found, ...keptBeside(mapper, found)].sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
}

function quarantinedAt(mapper: DmaMapper, sub: SubMapping): MappingStatus | undefined {
  const failure = mapper.quarantined.startingAt(sub.range.start);
  return failure?.sub === sub ? mapper.status.quarantined(failure) : undefined;
}

/** The device memory in quarantine, but for what failed because of it, or got there just now. */
function keptBeside(mapper: DmaMapper, found: readonly RefreshedMapping[]): RefreshedMapping[] {
  const kept = mapper.quarantined.values().filter(({ sub }) => isDevice(sub.store));
  const beside = kept.filter(({ range }) => !found.some((one) => one.range.equals(range)));
  return beside.map((failure) => ({ ...mapper.status.quarantined(failure), before: 'quarantined' }));
}

/** Does what may fail: the target’s status, or its quarantine, has it then. */
async function attempt(act: () => void | Promise<void>): Promise<void> {
  try {
    await act();
  } catch {
    // on record
  }
}
