/**
 * Reads open files of processes: /proc/PID/fd.
 */
import type { SysFiles } from '../sys-files.ts';

/** @internal */
export interface OpenFile {
  readonly process: number;
  /** The kernel's name of the program (15 bytes). */
  readonly program: string;
  /** The path of a device file, or `socket:[INODE]`. */
  readonly file: string;
}

/** Reads all open device files and sockets; only root can read those of other users. @internal */
export function readOpenFiles(proc: SysFiles): OpenFile[] {
  return proc
    .names('.')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const files = proc.names(`${name}/fd`).map((fd) => proc.link(`${name}/fd/${fd}`));
      const wanted = [...new Set(files)].filter((file) => file !== undefined && /^(\/dev\/|socket:)/.test(file));
      if (wanted.length === 0) return [];
      const program = proc.word(`${name}/comm`) ?? '?';
      return wanted.map((file = '') => ({ process: Number(name), program, file }));
    });
}

/** Lists processes that have one of the files open: `qemu-system-x86 (process 4711)`. @internal */
export function usersOf(openFiles: readonly OpenFile[], paths: readonly string[]): string[] {
  const users = openFiles.filter(({ file }) => paths.includes(file));
  return [...new Set(users.map(nameOf))];
}

/** Maps files to the processes that have them open, in the form of {@link usersOf}. @internal */
export function usersByFile(openFiles: readonly OpenFile[]): Map<string, string[]> {
  const users = new Map<string, string[]>();
  for (const { file, program, process } of openFiles) {
    const known = users.get(file) ?? [];
    known.push(nameOf({ program, process }));
    users.set(file, known);
  }
  return users;
}

function nameOf({ program, process }: Pick<OpenFile, 'program' | 'process'>): string {
  return `${program} (process ${process})`;
}
