import type { Host, PeerMatrix } from '../../host/index.ts';
export function topologyPage(_host: Host, _matrix: PeerMatrix): string {
  return '';
}
