/**
 * The host and the matrix as plain data, in which maps are lists.
 */
import type { Host, PeerMatrix } from '../../host/index.ts';

/** What `peerdma topology --json` prints. */
export function topologyJson(host: Host, matrix: PeerMatrix): unknown {
  const { functions, groups, iommus, ...rest } = host;
  return {
    ...rest,
    functions: [...functions.values()],
    groups: [...groups.values()],
    iommus: [...iommus.values()],
    peerToPeer: matrix,
  };
}
