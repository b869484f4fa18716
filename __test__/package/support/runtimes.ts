/**
 * Runtimes other than Node for the tests, from npm.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cache, toolchain } from './scripts.ts';

/** Packages with the binary of a runtime, with the digest of their contents. */
const RUNTIMES = [
  {
    name: 'Bun',
    id: '@oven/bun-linux-x64-baseline@1.4.5',
    integrity: 'sha512-s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA==',
    binary: 'bin/bun',
    args: [],
  },
  {
    name: 'Deno',
    id: '@deno/linux-x64-glibc@2.9.6',
    integrity: 'sha512-3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ==',
    binary: 'deno',
    args: ['run', '--allow-all'],
  },
] as const;

/** A runtime: its command for a file, or the reason why it is missing. */
export interface Runtime {
  readonly name: string;
  readonly command?: readonly [string, ...string[]];
  readonly missing?: string;
}

/** Returns each runtime from the cache or from npm. */
export function runtimes(): Promise<Runtime[]> {
  return Promise.all(RUNTIMES.map((runtime) => find(runtime)));
}

async function find({ name, id, integrity, binary, args }: (typeof RUNTIMES)[number]): Promise<Runtime> {
  try {
    const folder = await cache.cachedFolder(`runtime/${name}-${cache.digest(integrity)}`, (built) =>
      toolchain.unpackFromNpm(id, built, { integrity, only: [`package/${binary}`] }),
    );
    const path = join(folder, 'package', binary);
    if (!existsSync(path)) throw new Error(`${path} does not exist`);
    return { name, command: [path, ...args] };
  } catch (error) {
    return { name, missing: error instanceof Error ? error.message : String(error) };
  }
}
