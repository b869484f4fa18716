/**
 * The packages of a release, served from a registry on loopback and installed into projects.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Project } from './project.ts';
import { type Published, type Registry, serveRegistry } from './registry.ts';
import { type Platform, mainPackage, platformPackage, platforms, top } from './scripts.ts';

/** Path of a file of the checkout. */
export const path = (name: string): string => fileURLToPath(new URL(name, top));

/** The platform that the tests run on. */
export const here = platforms(path('.')).find(({ name }) => name === 'linux-x64-gnu') as Platform;

/** The packages of a release, and a registry that has them. */
export interface Packages {
  readonly tarballs: { readonly main: string; readonly platform: string };
  readonly registry: Registry;
  close(): void;
}

/** @param binary path of the native core: that of the checkout by default */
export async function servePackages(binary: string = path(`ts/native/${here.binary}`)): Promise<Packages> {
  const out = mkdtempSync(join(tmpdir(), 'peerdma-packages-'));
  const tarballs = { main: await mainPackage(out), platform: platformPackage(here, binary, out) };
  const registry = await serveRegistry([
    published(tarballs.main),
    published(tarballs.platform),
    // Those of other platforms are listed, and must not be downloaded.
    ...platforms(path('.')).flatMap((platform) =>
      platform.name === here.name ? [] : [{ manifest: platform.manifest }],
    ),
  ]);
  const close = (): void => {
    registry.close();
    rmSync(out, { recursive: true });
  };
  return { tarballs, registry, close };
}

/** A new project with the package installed, by npm with further options. */
export async function installPeerdma({ registry }: Packages, ...options: string[]): Promise<Project> {
  const project = new Project(process.execPath, registry.url);
  const { status, stderr } = await project.run('npm', 'install', 'peerdma', ...options);
  if (status !== 0) throw new Error(stderr);
  return project;
}

/** The README's first example, and the lines that it prints. */
export function readmeExample(): { code: string; output: string } {
  const code = /```ts\n(.*?)```/s.exec(readFileSync(path('README.md'), 'utf8'))?.[1] ?? '';
  const lines = [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, text]) => `${text}\n`);
  return { code, output: lines.join('') };
}

function published(tarball: string): Published {
  const { stdout } = spawnSync('tar', ['-xzOf', tarball, 'package/package.json'], { encoding: 'utf8' });
  return { manifest: JSON.parse(stdout) as Published['manifest'], tarball: readFileSync(tarball) };
}
