/**
 * Whether this process is in a user namespace of its own, as in rootless containers.
 *
 * Its capabilities have no effect outside of that namespace.
 */
import type { UnknownFact } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** Link of the initial user namespace, the same on every machine (Linux, `PROC_USER_INIT_INO`). */
const FIRST = 'user:[4026531837]';
/** User map of the initial namespace; other namespaces can have the same (user_namespaces(7)). */
const WHOLE_MAP = /^0\s+0\s+4294967295$/;

/** @param files the root of the file system; `undefined` if only a recorded /sys exists @internal */
export function isInUserNamespace(files: SysFiles | undefined): boolean | UnknownFact {
  const link = files?.link('proc/self/ns/user');
  const map = files?.text('proc/self/uid_map');
  if (link === undefined && map === undefined) return 'unknown';
  return (link !== undefined && link !== FIRST) || (map !== undefined && !WHOLE_MAP.test(map));
}
