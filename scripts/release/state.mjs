// Checks that a checkout matches its tag: one version everywhere, and no uncommitted changes.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { platforms } from './platforms.mjs';

/** Fields of package.json that need the URL of the repository. */
const ADDRESSES = ['repository', 'homepage', 'bugs'];

/**
 * Checks a checkout before a release.
 *
 * @param {string} top path of the checkout
 * @param {string} tag such as `v1.2.3`
 * @returns {string[]} the problems; none if it can be released
 */
export function releaseProblems(top, tag) {
  const manifest = json(top, 'package.json');
  const { version } = manifest;
  const problems = versionProblems(top, version);
  if (tag !== `v${version}`)
    problems.push(`the tag is ${tag}, and the version ${version}: the tag has to be v${version}`);
  if (!git(top, 'tag', '--points-at', 'HEAD').split('\n').includes(tag)) {
    problems.push(`what is checked out is not ${tag}: git checkout ${tag}`);
  }
  const changed = git(top, 'status', '--porcelain').trimEnd();
  if (changed !== '') problems.push(`there are changes that are not committed:\n${changed}`);
  for (const field of ADDRESSES.filter((name) => manifest[name] === undefined)) {
    problems.push(`package.json has no ${field}: fill it in (docs/releasing.md)`);
  }
  return problems;
}

/** Compares the version of package.json with all other copies of it. */
function versionProblems(top, version) {
  const lock = json(top, 'package-lock.json');
  const found = [
    ['package-lock.json', lock.version],
    ['package-lock.json, packages', lock.packages[''].version],
    ['Cargo.toml', /^\[workspace\.package\]\nversion = "(.*)"$/m.exec(read(top, 'Cargo.toml'))?.[1]],
    ...['peerdma-core', 'peerdma-node'].map((crate) => [`Cargo.lock, ${crate}`, lockedCrate(top, crate)]),
    ...platforms(top).map(({ folder, manifest }) => [join(folder, 'package.json'), manifest.version]),
  ];
  return found
    .filter(([, other]) => other !== version)
    .map(([where, other]) => `${where} has version ${other}, and package.json ${version}`);
}

function lockedCrate(top, name) {
  return new RegExp(`^name = "${name}"\nversion = "(.*)"$`, 'm').exec(read(top, 'Cargo.lock'))?.[1];
}

const read = (top, file) => readFileSync(join(top, file), 'utf8');
const json = (top, file) => JSON.parse(read(top, file));

function git(top, ...args) {
  const { status, stdout, stderr } = spawnSync('git', args, { cwd: top, encoding: 'utf8' });
  if (status !== 0) throw new Error(`git ${args.join(' ')}: ${stderr}`);
  return stdout;
}
