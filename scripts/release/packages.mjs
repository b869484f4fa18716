// Makes the packages: the main one, which is TypeScript compiled, and one for each platform, which is its native core.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { must } from '../setup.mjs';
import { top } from '../command.mjs';
import { packedPages } from './pages.mjs';
import { platforms } from './platforms.mjs';

/** Fields of the manifest that are the checkout's alone. */
const OF_THE_CHECKOUT = ['private', 'workspaces', 'scripts', 'devDependencies', 'overrides', 'napi'];
/** Files of the package that are no copies of those of the checkout. */
const MADE = ['dist', 'docs/*.md'];

/**
 * Makes the main package. Its manifest has what that of a checkout can't: the packages of the platforms, which `npm ci`
 * would look for before they are published.
 *
 * @param {string} out folder for the tarball
 * @returns {Promise<string>} its path
 */
export async function mainPackage(out) {
  const manifest = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8'));
  const kept = Object.entries(manifest).filter(([field]) => !OF_THE_CHECKOUT.includes(field));
  const optionalDependencies = Object.fromEntries(
    platforms(top).map(({ manifest: { name } }) => [name, manifest.version]),
  );
  const stage = newStage();
  writeManifest(stage, { ...Object.fromEntries(kept), optionalDependencies });
  const copied = manifest.files.filter((file) => !MADE.includes(file));
  for (const file of [...copied, 'LICENSE']) copy(join(top, file), join(stage, file));
  for (const [path, text] of packedPages(top, manifest)) write(join(stage, path), text);
  // Not what `npm run build` leaves in dist, where files may be that have no source any more.
  await compilePackage(join(stage, 'dist'));
  return pack(stage, out);
}

/**
 * Compiles what is published: the package, and the script of the page that `peerdma view` makes, which has the types of a browser.
 *
 * @param {string} [out] folder for it
 */
export async function compilePackage(out = 'dist') {
  for (const project of ['tsconfig.build.json', 'ts/cli/view/page/tsconfig.build.json']) {
    await must('node_modules/.bin/tsc', ['-p', project, '--outDir', out]);
  }
}

/**
 * Makes the package of a platform.
 *
 * @param {import("./platforms.mjs").Platform} platform
 * @param {string} binary path of its addon
 * @param {string} out folder for the tarball
 * @returns {string} its path
 */
export function platformPackage(platform, binary, out) {
  const stage = newStage();
  writeManifest(stage, platform.manifest);
  copy(join(top, platform.folder, 'README.md'), join(stage, 'README.md'));
  copy(join(top, 'LICENSE'), join(stage, 'LICENSE'));
  copy(binary, join(stage, platform.binary));
  return pack(stage, out);
}

/**
 * Asks publint and attw about a package.
 *
 * @param {string} tarball
 * @throws {Error} where they find fault with it
 */
export async function lintPackage(tarball) {
  await must('node_modules/.bin/publint', ['run', tarball, '--strict'], { quiet: true });
  await must('node_modules/.bin/attw', [tarball, '--profile', 'esm-only', '--quiet']);
}

function pack(stage, out) {
  mkdirSync(out, { recursive: true });
  const args = ['pack', stage, '--json', '--loglevel=error', '--pack-destination', resolve(out)];
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd: top, encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm pack: ${stderr}`);
  rmSync(stage, { recursive: true });
  const told = JSON.parse(stdout);
  const { filename } = Object.values(told)[0]; // a list, or since npm 12 an object, of one
  return join(resolve(out), basename(filename));
}

/** A folder of its own for each package that is made: tests make some at the same time. */
function newStage() {
  mkdirSync(join(top, 'target'), { recursive: true });
  return mkdtempSync(join(top, 'target/stage-'));
}

function writeManifest(folder, manifest) {
  write(join(folder, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

function write(path, text) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to, { recursive: true });
}
