/**
 * The scripts that these tests use. They are JavaScript, so that they run before `npm ci`.
 */
import type { Manifest } from './registry.ts';

export interface Platform {
  readonly name: string;
  readonly binary: string;
  readonly manifest: Manifest & { readonly os: string[]; readonly cpu: string[]; readonly libc: string[] };
}

interface SharedObject {
  readonly machine: string;
  readonly libraries: string[];
  readonly versions: string[];
  readonly unversioned: string[];
}

interface Cores {
  readonly binaries: ReadonlyMap<string, string>;
  readonly problems: string[];
}

/** The top of the checkout. */
export const top = new URL('../../../', import.meta.url);

const load = async <T>(path: string): Promise<T> => (await import(new URL(path, top).href)) as T;

export const cache = await load<{
  cachedFolder(name: string, build: (folder: string) => Promise<void>): Promise<string>;
  digest(...parts: string[]): string;
}>('testbed/cache.mjs');

export const toolchain = await load<{
  unpackFromNpm(id: string, folder: string, options: { integrity: string; only?: string[] }): Promise<void>;
}>('scripts/release/toolchain.mjs');

export const { platforms } = await load<{ platforms(top: string): Platform[] }>('scripts/release/platforms.mjs');

export const { readSharedObject } = await load<{ readSharedObject(path: string): SharedObject }>(
  'scripts/release/elf.mjs',
);

export const { binaryProblems, newestGlibc, GLIBC_FLOOR } = await load<{
  GLIBC_FLOOR: string;
  binaryProblems(path: string, platform: Platform): string[];
  newestGlibc(object: SharedObject): string;
}>('scripts/release/binary.mjs');

export const { buildCore, cores } = await load<{
  buildCore(platform: Platform): Promise<string>;
  cores(
    all: readonly Platform[],
    options: { folder?: string; build?: (platform: Platform) => Promise<string> },
  ): Promise<Cores>;
}>('scripts/release/core.mjs');

export const { lintPackage, mainPackage, platformPackage } = await load<{
  lintPackage(tarball: string): Promise<void>;
  mainPackage(out: string): Promise<string>;
  platformPackage(platform: Platform, binary: string, out: string): string;
}>('scripts/release/packages.mjs');

export const { releaseProblems } = await load<{ releaseProblems(top: string, tag: string): string[] }>(
  'scripts/release/state.mjs',
);

export const { packedPages } = await load<{
  packedPages(top: string, manifest: { version: string; repository?: { url: string } }): ReadonlyMap<string, string>;
}>('scripts/release/pages.mjs');
