/**
 * What is mounted from where, and what is swapped to: /proc/PID/mountinfo and /proc/swaps (proc(5)).
 */
import type { SysFiles } from '../sys-files.ts';

/** No sentence names more. */
const MOST_NAMED = 3;

/** A mounted file system, or swap. @internal */
export interface MountedFrom {
  /** Where it is mounted; `undefined` for swap. */
  readonly place: string | undefined;
  /** `259:2`; one that begins with 0 is of no block device, though it may sit on some. */
  readonly number: string | undefined;
  readonly type: string;
  /** What it was mounted from: `/dev/mapper/vg0-root`, the tag of a share, anything. */
  readonly source: string;
  /** Options of the file system itself: `rw,vers=4.2,addr=10.0.0.9`. */
  readonly options: string;
}

/** Of this process and of the first one: a program with mounts of its own should not forget the host's. @internal */
export function readMounts(proc: SysFiles): MountedFrom[] {
  const lines = ['1', 'self'].flatMap((process) => (proc.text(`${process}/mountinfo`) ?? '').split('\n'));
  return [...new Set(lines)].flatMap((line) => mountOf(line) ?? []);
}

/** `36 35 259:2 / /home rw,noatime shared:1 - ext4 /dev/nvme0n1p2 rw`: optional fields end with a dash. */
function mountOf(line: string): MountedFrom | undefined {
  const [before = '', after] = line.split(' - ', 2);
  const [, , number, , place] = before.split(' ');
  const [type, source, options = ''] = after?.split(' ') ?? [];
  if (number === undefined || place === undefined || type === undefined || source === undefined) return undefined;
  if (!/^\d{1,8}:\d{1,8}$/.test(number)) return undefined;
  return { place: unescaped(place), number, type, source: unescaped(source), options };
}

/** Swap on block devices; that in files is on a mounted file system. @internal */
export function readSwaps(proc: SysFiles): MountedFrom[] {
  const lines = (proc.text('swaps') ?? '').split('\n').slice(1);
  return lines.flatMap((line) => {
    const [path = '', kind] = line.split(/\s+/);
    if (kind !== 'partition') return [];
    return [{ place: undefined, number: undefined, type: 'swap', source: unescaped(path), options: '' }];
  });
}

/** The root file system first, and what is nearest to it. @internal */
export function placesText(places: readonly string[]): string {
  const sorted = [...new Set(places)].sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  const more = sorted.length - MOST_NAMED;
  return `${sorted.slice(0, MOST_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** White space and backslashes are three octal digits. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
