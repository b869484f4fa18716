// Builds the packages: the main one with the compiled TypeScript, and one for each platform with its native core.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { must } from '../setup.mjs';
import { top } from '../command.mjs';
import { bundlePages } from '../pages.mjs';
import { packedPages } from './pages.mjs';
import { platforms } from './platforms.mjs';

/** Fields of the manifest that are not published. */
const UNPUBLISHED_FIELDS = ['private', 'workspaces', 'scripts', 'devDependencies', 'overrides', 'napi'];
/** Files of the package that are generated, not copied from the checkout. */
const GENERATED = ['dist', 'docs/*.md'];

/**
 * Builds the main package. Its manifest adds the packages of the platforms as optional dependencies: in a checkout
 * `npm ci` would fail on them before they are published.
 *
 * @param {string} out folder for the tarball
 * @returns {Promise<string>} path of the tarball
 */
export async function mainPackage(out) {
  const manifest = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8'));
  const kept = Object.entries(manifest).filter(([field]) => !UNPUBLISHED_FIELDS.includes(field));
  const optionalDependencies = Object.fromEntries(
    platforms(top).map(({ manifest: { name } }) => [name, manifest.version]),
  );
  const stage = newStage();
  writeManifest(stage, { ...Object.fromEntries(kept), optionalDependencies });
  const copied = manifest.files.filter((file) => !GENERATED.includes(file));
  for (const file of [...copied, 'LICENSE']) copy(join(top, file), join(stage, file));
  for (const [path, text] of packedPages(top, manifest)) write(join(stage, path), text);
  // Compiles anew: the folder dist of the checkout may have files whose sources are removed.
  await compilePackage(join(stage, 'dist'));
  return pack(stage, out);
}

/**
 * Compiles the package and bundles its pages.
 *
 * @param {string} [out] folder for the output
 */
export async function compilePackage(out = 'dist') {
  await must('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', out]);
  await bundlePages(join(out, 'web'));
}

/**
 * Builds the package of a platform.
 *
 * @param {import("./platforms.mjs").Platform} platform
 * @param {string} binary path of its addon
 * @param {string} out folder for the tarball
 * @returns {string} path of the tarball
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
 * Checks a package with publint and attw.
 *
 * @param {string} tarball
 * @throws {Error} when they report a problem
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
  const packed = JSON.parse(stdout);
  const { filename } = Object.values(packed)[0]; // a list with one element; since npm 12 an object
  return join(resolve(out), basename(filename));
}

/** Creates a folder for the contents of a package. Tests build several packages at the same time. */
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
