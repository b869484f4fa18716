/**
 * The policy of a target for device memory: whether it has to map it, and the domains that it maps.
 */
import { readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { readDomains } from './device-access.ts';
import type { PeerToPeer } from './target.ts';

/** Options of {@link DmaMapperClient.addDmaMapper}: the policy of a target for device memory. */
export interface DmaMapperOptions {
  /** Whether the target maps device memory. Default: `best-effort` */
  readonly peerToPeer?: PeerToPeer;
  /**
   * The peer-to-peer domains whose device memory the target maps: those of {@link DeviceAccessOptions}. It skips the
   * memory of others. Default: `['default']`
   */
  readonly peerToPeerDomains?: readonly string[] | undefined;
}

/** @internal */
export interface PeerPolicy {
  readonly peerToPeer: PeerToPeer;
  readonly domains: ReadonlySet<string>;
}

const POLICIES: readonly PeerToPeer[] = ['best-effort', 'required', 'off'];

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readPeerPolicy(options: DmaMapperOptions = {}): PeerPolicy {
  const { peerToPeer, peerToPeerDomains } = readOptions(options, ['peerToPeer', 'peerToPeerDomains']);
  return { peerToPeer: requirePeerToPeer(peerToPeer), domains: readDomains(peerToPeerDomains) };
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requirePeerToPeer(peerToPeer: PeerToPeer = 'best-effort'): PeerToPeer {
  if (POLICIES.includes(peerToPeer)) return peerToPeer;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `peerToPeer is one of ${POLICIES.join(', ')}, not ${valueText(peerToPeer)}`,
  );
}

/** Whether two policies map the memory of the same domains. @internal */
export function haveSameDomains({ domains: a }: PeerPolicy, { domains: b }: PeerPolicy): boolean {
  return a.size === b.size && [...a].every((domain) => b.has(domain));
}
