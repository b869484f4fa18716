/**
 * The peer-to-peer domains of random programs. One window is apart, and some targets map one domain.
 */
import type { ModelCell } from '../memory-model.ts';
import type { CastName } from './cast.ts';

export const ALL_DOMAINS: readonly string[] = ['default', 'apart'];

/** The domain of a window. */
export function domainOf(window: string): string {
  return window === 'w1' ? 'apart' : 'default';
}

/** The domains whose device memory a target maps. */
export function domainsOf(target: CastName): readonly string[] {
  if (target === 'batch') return ['apart'];
  return target === 'slow' ? ['default'] : ALL_DOMAINS;
}

/** Whether a target maps memory of its domain; all map RAM. */
export function isInDomain(target: CastName, { kind, region }: ModelCell): boolean {
  return kind === 'ram' || domainsOf(target).includes(domainOf(region));
}
