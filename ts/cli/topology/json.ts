/**
 * Converts the host and the matrix to plain data: maps become lists.
 */
import type { HostMachine } from '../../host.ts';
import { cliquesOf } from '../../host/peer-to-peer/cliques.ts';
import type { MatrixParts } from '../../host/peer-to-peer/model.ts';

/** Returns the output of `peerdma topology --json`. */
export function topologyJson(host: HostMachine, matrix: MatrixParts): unknown {
  const { functions, groups, iommus, ...rest } = host;
  const { devices, ...parts } = matrix;
  const { cliques, without } = cliquesOf(matrix);
  return {
    ...rest,
    functions: [...functions.values()],
    groups: [...groups.values()],
    iommus: [...iommus.values()],
    peerToPeer: { devices, cliques, withoutClique: without, ...parts },
  };
}
