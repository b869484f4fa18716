/**
 * The cells of a matrix by their devices.
 */
import type { PeerCell, PeerMatrix } from '../../host/index.ts';

/** Looks up the cell of a pair; `undefined` for a device with itself. */
export type CellOf = (initiator: string, target: string) => PeerCell | undefined;

/** Reads the cells once, so that each of the n² pairs is found without a search. */
export function cellsByPair({ cells }: PeerMatrix): CellOf {
  const rows = new Map<string, Map<string, PeerCell>>();
  for (const cell of cells) {
    const row = rows.get(cell.initiator);
    if (row === undefined) rows.set(cell.initiator, new Map([[cell.target, cell]]));
    else row.set(cell.target, cell);
  }
  return (initiator, target) => rows.get(initiator)?.get(target);
}
