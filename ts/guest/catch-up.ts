/**
 * Maps the sub-mappings that the host view and the targets lack. A later failure does not undo it.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { throwIf } from '../errors.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { type Mappers, faultIn, mapMissing, mappedByHostAddress } from './host-view.ts';
import { quarantineFor } from './quarantine.ts';

/** Runs one step, and decides whether its error is thrown. */
type Attempt = (step: () => Promise<void>) => Promise<void>;

/**
 * Maps those of these sub-mappings that the host view and targets lack.
 *
 * @param concerned the targets that receive them
 * @param mappers all targets, for their quarantine
 * @param attempt runs each step: the host view, then each target. Default: the first error is thrown
 * @internal
 */
export async function catchUp(
  subs: readonly SubMapping[],
  concerned: Mappers,
  mappers: Mappers,
  va: VaMapper | undefined,
  attempt: Attempt = (step) => step(),
): Promise<void> {
  if (va !== undefined) await attempt(() => mapMissing(mappedByHostAddress(subs, concerned), concerned, mappers, va));
  for (const mapper of concerned) await attempt(() => retry(mapper, subs, mappers, va));
}

/**
 * Maps again what a target misses. Memory that a quarantine blocks stays missing.
 *
 * @throws {PeerDmaError} `ERR_RANGE_QUARANTINED` if the target requires such memory
 */
async function retry(
  mapper: DmaMapper,
  subs: readonly SubMapping[],
  mappers: Mappers,
  va: VaMapper | undefined,
): Promise<void> {
  const missing = mapper.missingAmong(subs);
  if (missing.length === 0) return;
  const free = missing.filter((sub) => {
    const quarantine = quarantineFor(mapper, sub, mappers);
    if (mapper.requires(sub)) throwIf(quarantine);
    return quarantine === undefined;
  });
  if (va !== undefined) await faultIn(free, [mapper], va);
  await mapper.retry(free);
}
