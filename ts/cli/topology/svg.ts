import type { Host, PeerMatrix } from '../../host/index.ts';
export function topologySvg(_host: Host, _matrix: PeerMatrix): string {
  return '';
}
