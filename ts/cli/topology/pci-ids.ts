/**
 * Names of PCI vendors and devices, from the file `pci.ids` of the system (https://pci-ids.ucw.cz).
 */
import { basename, dirname } from 'node:path';
import type { PciFunction } from '../../host.ts';
import { SysFiles } from '../../host/sys-files.ts';

/** Paths of Debian and Ubuntu; of Fedora, RHEL, Arch and Alpine; of pciutils without a distribution. */
const SYSTEM_FILES = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids', '/usr/share/pci.ids'];
/** Limit of the length of a file, which has 1.6 MB in 2026. */
const MAX_BYTES = 16 << 20;

/** Names of vendors by `10de`, and of their devices by `10de:2330`. */
export type PciNames = ReadonlyMap<string, string>;

/** Formats vendor and device ID, with their names if these are known. */
export type IdsText = (device: Pick<PciFunction, 'ids'>) => string;

/**
 * Creates a formatter of IDs with their names, such as `10de:2330 GH100 [H100], NVIDIA Corporation`.
 *
 * The name of the device precedes the vendor's, since some places cut the end of a long text.
 *
 * @param files paths of `pci.ids`. The first call of the formatter reads the first file that has names
 */
export function newIdsText(files: readonly string[] = SYSTEM_FILES): IdsText {
  let names: PciNames | undefined;
  return ({ ids }) => {
    const [vendor, device] = [ids.vendor, ids.device].map((id) =>
      id === 'unknown' ? '????' : id.toString(16).padStart(4, '0'),
    );
    names ??= readNames(files);
    const numbers = `${vendor}:${device}`;
    const known = [names.get(numbers), names.get(`${vendor}`)].filter((name) => name !== undefined);
    return known.length === 0 ? numbers : `${numbers} ${known.join(', ')}`;
  };
}

function readNames(files: readonly string[]): PciNames {
  for (const file of files) {
    const bytes = new SysFiles(dirname(file), MAX_BYTES).bytes(basename(file));
    const names = parsePciIds(Buffer.from(bytes ?? []).toString('utf8'));
    if (names.size > 0) return names;
  }
  return new Map();
}

/**
 * Parses `pci.ids`: lines of vendors, and lines of their devices, which begin with a tab. Skips sub-devices, classes,
 * comments, invalid lines, and the end of a truncated file.
 */
export function parsePciIds(text: string): PciNames {
  const names = new Map<string, string>();
  let vendor: string | undefined;
  // The text after the last line feed is not a complete line.
  for (const line of text.split('\n').slice(0, -1)) {
    const [, tab, id = '', name = ''] = /^(\t?)([0-9a-f]{4}) {2}(.*\S)/i.exec(line) ?? [];
    if (tab === '') vendor = id.toLowerCase();
    // Another section, such as that of classes, does not belong to the vendor.
    else if (/^[^\t#\s]/.test(line)) vendor = undefined;
    if (tab === undefined || vendor === undefined) continue;
    const key = tab === '' ? vendor : `${vendor}:${id.toLowerCase()}`;
    names.set(key, name.replaceAll(/\p{Cc}/gu, ''));
  }
  return names;
}
