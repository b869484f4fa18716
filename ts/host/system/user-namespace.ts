/**
 * Whether this process is in a user namespace of its own, as in rootless containers: its capabilities have no
 * effect outside.
 */
import type { Unknown } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** Number of the initial user namespace, the same on every machine (Linux, `PROC_USER_INIT_INO`). */
const FIRST = 'user:[4026531837]';
/** Map of users of the initial one; another namespace may have it too (user_namespaces(7)). */
const WHOLE_MAP = /^0\s+0\s+4294967295$/;

/** @param files below the root of the file system; `undefined` for a machine of which only /sys is there @internal */
export function isInUserNamespace(files: SysFiles | undefined): boolean | Unknown {
  const link = files?.link('proc/self/ns/user');
  const map = files?.text('proc/self/uid_map');
  if (link === undefined && map === undefined) return 'unknown';
  return (link !== undefined && link !== FIRST) || (map !== undefined && !WHOLE_MAP.test(map));
}
