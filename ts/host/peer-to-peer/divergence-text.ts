/**
 * Places and decisions of a path in words.
 */
import type { Reason } from './model.ts';
import type { PathDivergence } from './path-divergence.ts';

/** @internal */
export function note(code: Reason['code'], text: string): Reason {
  return { code, text };
}

/** Where paths part: a switch, a bus or a device. @internal */
export function describeDivergence({ kind, common, initiatorSide, targetSide }: PathDivergence): string {
  if (kind === 'switch') return `the switch below ${common?.address}`;
  if (kind === 'conventional') return `the conventional bus below ${common?.address}`;
  const one = initiatorSide.address.slice(0, -2) === targetSide.address.slice(0, -2);
  return one ? `the device ${initiatorSide.address.slice(0, -2)}` : `what is below ${common?.address}`;
}

/** Says that a port or function sends requests up: its ACS redirects them, or allows no direct path. @internal */
export function describeRedirect({ initiatorSide }: PathDivergence, requests: string): string {
  const { address, acs } = initiatorSide;
  if (typeof acs === 'object' && acs.has.includes('ReqRedir')) return `ACS of ${address} redirects ${requests}`;
  return `${address} has ACS without request redirect (ReqRedir), so no path to its neighbours: it sends ${requests}`;
}

/** @internal */
export function describeUnreadAcs({ initiatorSide }: PathDivergence): string {
  return `ACS of ${initiatorSide.address} can't be read (root can)`;
}
