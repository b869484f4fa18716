import { readdirSync, readlinkSync } from 'node:fs';

/** The target of each descriptor of this process in /proc. */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => openFile(fd) || []);
}

/** The target of a descriptor; `''` for a closed one, such as that of the folder itself. */
export function openFile(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
