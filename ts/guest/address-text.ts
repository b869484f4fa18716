/**
 * The memory at an address of a snapshot, as sentences.
 */
import type { MemoryAtAddress } from './explain.ts';
import type { MemorySnapshot } from './inspect.ts';
import type { RegionAtAddress } from './layers.ts';

/** The memory, its backing, and the regions that it hides. @internal */
export function addressText(
  snapshot: MemorySnapshot,
  address: bigint,
  layers: readonly RegionAtAddress[],
  memory: MemoryAtAddress | undefined,
): string {
  const where = `0x${address.toString(16)}`;
  const [top, ...below] = layers;
  if (top === undefined) return nothingAt(snapshot, address);
  const hidden = below.map((layer) => `${layerText(layer)}${layer.hasMemory ? '' : ', without memory there'}`);
  const hides = hidden.length === 0 ? '' : ` It hides ${hidden.join(', and ')}.`;
  const offset = `0x${(address - BigInt(top.start)).toString(16)}`;
  if (memory === undefined) {
    const why = top.hasMemory
      ? 'whose memory is not in the map'
      : 'which has no memory there: accesses exit to the VMM';
    return `${where} is offset ${offset} of ${layerText(top)}, ${why}.${hides}`;
  }
  const access = memory.writable ? 'writable' : 'read-only';
  const backing = memory.backing === 'private' ? 'private memory' : memory.backing;
  return `${where} is offset ${offset} of ${layerText(top)}, which shows ${backing}, ${access}.${hides}`;
}

/** A region with its kind and priority. @internal */
export function layerText({ name, kind, priority }: RegionAtAddress): string {
  return `"${name}" (${kind}, priority ${priority})`;
}

/** Why there is no memory, and the nearest regions. @internal */
export function nothingAt({ addressWidth, regions }: MemorySnapshot, address: bigint): string {
  const where = `0x${address.toString(16)}`;
  if (address.toString(2).length > addressWidth) {
    return `${where} is beyond the guest's addresses, which have ${addressWidth} bits.`;
  }
  let below: { name: string; end: bigint } | undefined;
  let above: { name: string; start: bigint } | undefined;
  for (const { name, range } of regions) {
    if (range === undefined) continue;
    const start = BigInt(range.start);
    const end = BigInt(range.end);
    if (end <= address && (below === undefined || end > below.end)) below = { name, end };
    if (start > address && (above === undefined || start < above.start)) above = { name, start };
  }
  const nearest = [
    below === undefined ? undefined : `"${below.name}" ends at 0x${below.end.toString(16)}`,
    above === undefined ? undefined : `"${above.name}" begins at 0x${above.start.toString(16)}`,
  ].filter((text) => text !== undefined);
  const idle = regions.filter(({ active }) => !active).map(({ name }) => `"${name}"`);
  return [
    `Nothing is at ${where}: no active region has it${nearest.length === 0 ? '' : `; ${nearest.join(', ')}`}.`,
    ...(idle.length === 0
      ? []
      : [`Not active, so nowhere: ${idle.slice(0, 5).join(', ')}${idle.length > 5 ? ' …' : ''}.`]),
  ].join(' ');
}
