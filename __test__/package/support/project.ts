/**
 * A project that uses the package. It has a folder, and a PATH with only Node, npm and a shell.
 */
import { type SpawnSyncReturns, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { accessSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type Outcome = Pick<SpawnSyncReturns<string>, 'status' | 'stdout' | 'stderr'>;

export class Project {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'peerdma-project-'));
  readonly #env: NodeJS.ProcessEnv;

  /**
   * @param node path of the Node that all of it runs on
   * @param registry address of the registry that npm asks
   */
  constructor(node: string, registry: string) {
    const tools = join(this.folder, '.tools');
    mkdirSync(tools);
    symlinkSync(node, join(tools, 'node'));
    for (const name of ['npm', 'npx', 'sh']) symlinkSync(found(name), join(tools, name));
    this.write('package.json', JSON.stringify({ name: 'project', private: true, type: 'module' }));
    this.#env = {
      PATH: tools,
      HOME: join(this.folder, '.home'),
      npm_config_registry: registry,
      npm_config_audit: 'false',
      npm_config_fund: 'false',
      npm_config_update_notifier: 'false',
      npm_config_yes: 'false',
      npm_config_fetch_retries: '0',
    };
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  /** Runs a program of the PATH to its end. `spawnSync` would block the registry for npm in this process. */
  run(program: string, ...args: string[]): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const child = spawn(program, args, { cwd: this.folder, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] });
      let [stdout, stderr] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      child.once('error', reject);
      child.once('close', (status) => resolve({ status, stdout, stderr }));
    });
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The real path of a program of this machine. */
function found(name: string): string {
  for (const folder of (process.env['PATH'] ?? '').split(':')) {
    // npm prepends folders of its own, maybe with other versions of npm, to those of the machine.
    if (folder.includes('node_modules')) continue;
    try {
      accessSync(join(folder, name), constants.X_OK);
      return realpathSync(join(folder, name));
    } catch {
      // It is not in this folder.
    }
  }
  throw new Error(`no ${name} on the PATH`);
}
