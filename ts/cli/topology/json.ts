/**
 * The host and the matrix as plain data, in which maps are lists.
 */
import type { Host } from '../../host/index.ts';
import type { MatrixParts } from '../../host/peer-to-peer/model.ts';

/** What `peerdma topology --json` prints. */
export function topologyJson(host: Host, matrix: MatrixParts): unknown {
  const { functions, groups, iommus, ...rest } = host;
  return {
    ...rest,
    functions: [...functions.values()],
    groups: [...groups.values()],
    iommus: [...iommus.values()],
    peerToPeer: matrix,
  };
}
