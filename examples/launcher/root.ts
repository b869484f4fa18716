/**
 * The root folder of the VMM: Node, its libraries and the program, and nothing else. It has no /sys, /dev or /proc.
 */
import { spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** Folders of the system's libraries. On most systems, all but /usr are links into it. */
const SYSTEM = ['/usr', '/lib', '/lib64'];

export class Root implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'peerdma-launcher-'));
  readonly #mounts: string[] = [];

  /** @param folders that the program needs, besides those of the system */
  constructor(folders: readonly string[]) {
    run('chmod', '755', this.path);
    for (const folder of new Set([...SYSTEM, ...folders])) this.#add(folder);
  }

  /** Unmounts everything and removes the folder. */
  [Symbol.dispose](): void {
    for (const mount of this.#mounts.toReversed()) run('umount', mount);
    rmSync(this.path, { recursive: true });
  }

  #add(folder: string): void {
    const place = join(this.path, folder);
    const stat = lstatSync(folder, { throwIfNoEntry: false });
    if (stat === undefined) return;
    mkdirSync(dirname(place), { recursive: true });
    if (stat.isSymbolicLink()) {
      symlinkSync(readlinkSync(folder), place);
      return;
    }
    mkdirSync(place, { recursive: true });
    run('mount', '--bind', folder, place);
    this.#mounts.push(place);
  }
}

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
}
