/**
 * All of it as plain data that `JSON.stringify` takes: addresses and lengths are hexadecimal strings, as in
 * `MemorySnapshot`, and maps are lists.
 */
import { hex } from '../../address-range.ts';
import type { Host, PeerMatrix } from '../../host/index.ts';

/** What `peerdma topology --json` prints. */
export function topologyJson(host: Host, matrix: PeerMatrix): string {
  const { functions, groups, iommus, ...rest } = host;
  const plain = {
    ...rest,
    functions: [...functions.values()],
    groups: [...groups.values()],
    iommus: [...iommus.values()],
    peerToPeer: matrix,
  };
  return `${JSON.stringify(plain, (_, value: unknown) => (typeof value === 'bigint' ? hex(value) : value), 2)}\n`;
}
