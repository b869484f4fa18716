/**
 * Pages that the machine loses, as after an uncorrectable memory error (CONFIG_MEMORY_FAILURE).
 */
import { closeSync, existsSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';

/** The kernel takes the page of an address that is written here for a broken one. */
const OFFLINE = '/sys/devices/system/memory/hard_offline_page';
const PAGE = 4096n;
/** Fields of an entry of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
const [PRESENT, NUMBER] = [1n << 63n, (1n << 55n) - 1n] as const;

/** Whether the kernel can lose a page on request. */
export const CAN_LOSE_PAGES: boolean = existsSync(OFFLINE);

/**
 * Loses the page at an offset of a file that this process has mapped and accessed.
 *
 * @param name the file, as in /proc/self/maps
 */
export function losePage(name: string, offset: bigint): void {
  const physical = physicalAddress(hostAddress(name, offset));
  writeFileSync(OFFLINE, `0x${physical.toString(16)}`);
}

function hostAddress(name: string, offset: bigint): bigint {
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const fields = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) /.exec(line)?.slice(1) ?? [];
    const [start = 0n, end = 0n, from = 0n] = fields.map((field) => BigInt(`0x${field}`));
    if (line.includes(name) && offset >= from && offset - from < end - start) return start + offset - from;
  }
  throw new Error(`${name} is not mapped at ${offset}`);
}

function physicalAddress(address: bigint): bigint {
  const fd = openSync('/proc/self/pagemap', 'r');
  try {
    const entry = new BigUint64Array(1);
    readSync(fd, entry, 0, 8, Number((address / PAGE) * 8n));
    const [value = 0n] = entry;
    if ((value & PRESENT) === 0n) throw new Error(`no page at ${address.toString(16)}`);
    return (value & NUMBER) * PAGE;
  } finally {
    closeSync(fd);
  }
}
