/**
 * QEMU's storage daemon with a disk as a vhost-user back end. Without the program, its tests are skipped.
 */
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchFolder } from '../../support/scratch.ts';
import { until } from '../../support/until.ts';

const PROGRAM = 'qemu-storage-daemon';

/** A test that needs the program. */
export function daemonTest(title: string, act: (t: ExecutionContext) => Promise<void>): void {
  const test: TestFn = anyTest;
  if (spawnSync(PROGRAM, ['--version']).status === 0) test(title, act);
  else test.skip(`${title} (needs ${PROGRAM}: apt-get install qemu-utils)`, () => {});
}

export class StorageDaemon {
  /** The path of its socket. */
  readonly path: string;
  readonly #image: string;
  readonly #requestsPerSecond: number | undefined;
  #process: ChildProcess | undefined;

  private constructor(folder: string, requestsPerSecond: number | undefined) {
    this.#requestsPerSecond = requestsPerSecond;
    this.path = join(folder, 'disk.sock');
    this.#image = join(folder, 'disk.img');
  }

  /** Starts it with a disk of these bytes. @param requestsPerSecond a limit: others wait in flight */
  static async start(t: ExecutionContext, contents: Uint8Array, requestsPerSecond?: number): Promise<StorageDaemon> {
    const daemon = new StorageDaemon(scratchFolder(t), requestsPerSecond);
    writeFileSync(daemon.#image, contents);
    t.teardown(() => daemon.kill());
    await daemon.startAgain();
    return daemon;
  }

  async startAgain(): Promise<void> {
    rmSync(this.path, { force: true });
    const limit = this.#requestsPerSecond;
    const address = `addr.type=unix,addr.path=${this.path}`;
    const exported = `type=vhost-user-blk,id=export,node-name=${limit === undefined ? 'disk' : 'slow'},${address},writable=on`;
    const throttled =
      limit === undefined
        ? []
        : [
            '--object',
            `throttle-group,id=group,x-iops-total=${limit}`,
            '--blockdev',
            'driver=throttle,node-name=slow,throttle-group=group,file=disk',
          ];
    const disk = ['--blockdev', `driver=file,node-name=disk,filename=${this.#image},locking=off`];
    // Its messages about requests to missing memory are expected.
    this.#process = spawn(PROGRAM, [...disk, ...throttled, '--export', exported], { stdio: 'ignore' });
    await until(() => existsSync(this.path), 'the daemon listens');
  }

  /** Ends it at once, without a word to its clients. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined) return;
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  /** Suspends it, so that it does not reply. */
  suspend(): void {
    this.#process?.kill('SIGSTOP');
  }

  resume(): void {
    this.#process?.kill('SIGCONT');
  }

  /** Bytes of the disk. */
  sectors(first: number, count: number): Uint8Array {
    return readFileSync(this.#image).subarray(first * 512, (first + count) * 512);
  }
}

/** A disk in which each sector is different. */
export function diskContents(sectors: number): Uint8Array {
  return new Uint8Array(sectors * 512).map((_, at) => (at * 7 + (at >> 9) * 13) & 0xff);
}
