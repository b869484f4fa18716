/**
 * Converts the host and the matrix to plain data: maps become lists.
 */
import type { HostMachine } from '../../host.ts';
import type { MatrixParts } from '../../host/peer-to-peer/model.ts';

/** Returns the output of `peerdma topology --json`. */
export function topologyJson(host: HostMachine, matrix: MatrixParts): unknown {
  const { functions, groups, iommus, ...rest } = host;
  return {
    ...rest,
    functions: [...functions.values()],
    groups: [...groups.values()],
    iommus: [...iommus.values()],
    peerToPeer: matrix,
  };
}
