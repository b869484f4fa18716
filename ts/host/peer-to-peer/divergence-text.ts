/**
 * Text for reasons: places and routing decisions of a path.
 */
import type { PeerReason } from './model.ts';
import type { PathDivergence } from './path-divergence.ts';

/** @internal */
export function note(code: PeerReason['code'], text: string): PeerReason {
  return { code, text };
}

/** Names the switch, bus or device at which two paths diverge. @internal */
export function describeDivergence({ kind, common, initiatorSide, targetSide }: PathDivergence): string {
  if (kind === 'switch') return `the switch below ${common?.address}`;
  if (kind === 'conventional') return `the conventional bus below ${common?.address}`;
  const one = initiatorSide.address.slice(0, -2) === targetSide.address.slice(0, -2);
  return one ? `the device ${initiatorSide.address.slice(0, -2)}` : `the bus below ${common?.address}`;
}

/** Explains that a port or function sends requests up. Its ACS redirects them or allows no direct path. @internal */
export function describeRedirect({ initiatorSide }: PathDivergence, requests: string): string {
  const { address, acs } = initiatorSide;
  if (typeof acs === 'object' && acs.has.includes('ReqRedir')) return `ACS of ${address} redirects ${requests}`;
  return `${address} has ACS without request redirect (ReqRedir), so no path to its neighbours: it sends ${requests}`;
}

/** @internal */
export function describeUnreadAcs({ initiatorSide }: PathDivergence): string {
  return `ACS of ${initiatorSide.address} cannot be read (root can)`;
}
