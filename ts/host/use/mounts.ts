/**
 * Reads mounts and swap: /proc/PID/mountinfo and /proc/swaps (proc(5)).
 */
import type { SysFiles } from '../sys-files.ts';

/** The most mount points that a message lists. */
const MAX_NAMED = 3;

/** A mounted file system, or swap. @internal */
export interface MountedFrom {
  /** Mount point; `undefined` for swap. */
  readonly place: string | undefined;
  /** Device number, `259:2`. One that begins with 0 is not of a block device. */
  readonly number: string | undefined;
  readonly type: string;
  /** Source of the mount: `/dev/mapper/vg0-root`, the tag of a share, or other text. */
  readonly source: string;
  /** Options of the file system itself: `rw,vers=4.2,addr=10.0.0.9`. */
  readonly options: string;
}

/** Reads mounts of this process and of process 1: they differ in another mount namespace. @internal */
export function readMounts(proc: SysFiles): MountedFrom[] {
  const lines = ['1', 'self'].flatMap((process) => (proc.text(`${process}/mountinfo`) ?? '').split('\n'));
  return [...new Set(lines)].flatMap((line) => mountOf(line) ?? []);
}

/** Parses `36 35 259:2 / /home rw shared:1 - ext4 /dev/nvme0n1p2 rw`; a dash ends the optional fields. */
function mountOf(line: string): MountedFrom | undefined {
  const [before = '', after] = line.split(' - ', 2);
  const [, , number, , place] = before.split(' ');
  const [type, source, options = ''] = after?.split(' ') ?? [];
  if (number === undefined || place === undefined || type === undefined || source === undefined) return undefined;
  if (!/^\d{1,8}:\d{1,8}$/.test(number)) return undefined;
  return { place: unescaped(place), number, type, source: unescaped(source), options };
}

/** Reads swap on block devices; swap files are on mounted file systems. @internal */
export function readSwaps(proc: SysFiles): MountedFrom[] {
  const lines = (proc.text('swaps') ?? '').split('\n').slice(1);
  return lines.flatMap((line) => {
    const [path = '', kind] = line.split(/\s+/);
    if (kind !== 'partition') return [];
    return [{ place: undefined, number: undefined, type: 'swap', source: unescaped(path), options: '' }];
  });
}

/** Formats mount points, the shortest first. @internal */
export function placesText(places: readonly string[]): string {
  const sorted = [...new Set(places)].sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  const more = sorted.length - MAX_NAMED;
  return `${sorted.slice(0, MAX_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** Decodes white space and backslashes, which are three octal digits. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
