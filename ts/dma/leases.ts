/**
 * The host memory that one target holds.
 */
import type { HostMemory } from '../memory/host-memory.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { Held } from './holdings.ts';
import type { SubMapping } from './sub-mapping.ts';

/** @internal */
export class Leases {
  readonly #va: () => VaMapper;
  readonly #wantsVa: (sub: SubMapping) => boolean;

  /**
   * @param va makes this process's view of guest memory, if there is none yet
   * @param wantsVa whether the target maps the memory by its host virtual address
   */
  constructor(va: () => VaMapper, wantsVa: (sub: SubMapping) => boolean) {
    this.#va = va;
    this.#wantsVa = wantsVa;
  }

  /** Leases the memory that the target needs as host memory. @throws {PeerDmaError} as {@link VaMapper.lend} */
  lease(helds: readonly Held[]): void {
    const wanted = helds.filter((held) => this.#wantsVa(held.sub));
    if (wanted.length === 0) return;
    const memories = this.#va().lend(wanted.map((held) => held.sub));
    for (const [index, held] of wanted.entries()) held.hostMemory = memories[index];
  }

  release(helds: readonly Held[]): void {
    const lent: HostMemory[] = [];
    for (const held of helds) {
      if (held.hostMemory !== undefined) lent.push(held.hostMemory);
      held.hostMemory = undefined;
    }
    if (lent.length > 0) this.#va().release(lent);
  }
}
