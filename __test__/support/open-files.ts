import { readdirSync, readlinkSync } from 'node:fs';

/** What each descriptor of this process is, as /proc names it. */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => openFile(fd) || []);
}

/** What a descriptor of this process is; nothing for one that is closed, as that of the folder itself. */
export function openFile(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
