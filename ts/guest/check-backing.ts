/**
 * Checks backings before a change unmaps anything. Memory that no longer exists could be mapped neither at its new
 * addresses nor at its old ones.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { isDevice, isPresent, truncated } from '../memory/backing.ts';

/**
 * @throws {PeerDmaError} `ERR_MEMORY_FAULT` for a file that was truncated, and for the memory of a device that does not
 * decode it, if a target requires it
 * @internal
 */
export function requireBackingPresent(added: readonly SubMapping[], mappers: Iterable<DmaMapper>): void {
  const joined = [...mappers].filter((mapper) => mapper.joined);
  for (const sub of added) {
    const { memory, range, name } = sub;
    const concerned = joined.filter((mapper) => mapper.usesHostAddress(sub) || mapper.mapsFile(sub));
    const target = concerned.find((mapper) => !isDevice(memory) || mapper.requires(sub))?.name;
    if (target === undefined || isPresent(memory, range.length)) continue;
    if (!isDevice(memory)) throw truncated(memory, range, { target });
    throw new PeerDmaError(
      'ERR_MEMORY_FAULT',
      `${target}: cannot map "${name}" at ${range}: the device's memory is switched off. ` +
        'Turn on its memory decode (Command register, bit 1) first',
      { range, target },
    );
  }
}
