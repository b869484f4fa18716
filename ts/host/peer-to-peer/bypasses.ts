/**
 * Finds guest addresses that bypass the IOMMU. They are host addresses of a neighbour, if ACS does not redirect
 * requests.
 *
 * Guest memory must not be at these addresses.
 */
import type { PciFunction } from '../model.ts';
import type { IommuBypass } from './model.ts';
import { findDivergence } from './path-divergence.ts';
import type { Paths } from './paths.ts';

/** @internal */
export function bypassesOf(paths: Paths, initiator: PciFunction): IommuBypass[] {
  if (initiator.group === undefined) return [];
  const found: IommuBypass[] = [];
  let below: PciFunction = initiator;
  for (const bridge of paths.pathOf(initiator).slice(1)) {
    for (const neighbour of paths.childrenOf(bridge)) {
      if (neighbour.address === below.address) continue;
      const { untranslated } = findDivergence(paths, initiator, neighbour);
      if (untranslated === 'redirect') continue;
      const certain = untranslated === 'direct';
      for (const [start, length] of memoryOf(neighbour)) {
        found.push({
          initiator: initiator.address,
          neighbour: neighbour.address,
          below: bridge.address,
          certain,
          start,
          end: start + length,
        });
      }
    }
    below = bridge;
  }
  return found;
}

/** Host addresses that a function decodes or a bridge forwards. */
function memoryOf({ bars, windows }: PciFunction): [start: bigint, length: bigint][] {
  const own = bars.filter(({ kind }) => kind !== 'io' && kind !== 'rom');
  const below = windows.filter(({ kind }) => kind !== 'io');
  return [...own, ...below].flatMap(({ address, length }) => (address === undefined ? [] : [[address, length]]));
}
