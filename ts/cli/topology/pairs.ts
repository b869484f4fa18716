/**
 * Finds the cell of a pair of devices in a matrix.
 */
import type { PeerCell, PeerMatrix } from '../../host.ts';

/** Returns the cell of a pair; `undefined` if initiator and target are the same device. */
export type CellOf = (initiator: string, target: string) => PeerCell | undefined;

/** Indexes the cells, so that a lookup takes constant time: a matrix has n² pairs. */
export function cellsByPair({ cells }: PeerMatrix): CellOf {
  const rows = new Map<string, Map<string, PeerCell>>();
  for (const cell of cells) {
    const row = rows.get(cell.initiator);
    if (row === undefined) rows.set(cell.initiator, new Map([[cell.target, cell]]));
    else row.set(cell.target, cell);
  }
  return (initiator, target) => rows.get(initiator)?.get(target);
}
