// Builds all packages of a release from a tag. Does not publish them: see docs/releasing.md.
//
//   npm run release -- v1.2.3 [--binaries DIR] [--out DIR]
//
// DIR of --binaries has addons that were built on other machines, such as peerdma.linux-arm64-gnu.node.
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { say, top } from './command.mjs';
import { cores } from './release/core.mjs';
import { lintPackage, mainPackage, platformPackage } from './release/packages.mjs';
import { platforms } from './release/platforms.mjs';
import { releaseProblems } from './release/state.mjs';
import { dependencies, nodeVersion } from './setup.mjs';

const USAGE = 'npm run release -- TAG [--binaries DIR] [--out DIR]';

async function release() {
  const options = { binaries: { type: 'string' }, out: { type: 'string' } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [tag] = positionals;
  if (tag === undefined || positionals.length > 1) throw new Error(`usage: ${USAGE}`);
  process.chdir(top);
  nodeVersion();
  refuseAt(releaseProblems(top, tag));
  await dependencies();
  const all = platforms(top);
  const { binaries, problems } = await cores(all, { folder: values.binaries });
  refuseAt(problems);
  const out = values.out ?? join('target/packages', tag);
  if (values.out === undefined) rmSync(out, { recursive: true, force: true });
  // In the order of publishing: the main package comes last, so that its optional dependencies exist.
  const made = all.map((platform) => platformPackage(platform, binaries.get(platform.name), out));
  made.push(await mainPackage(out));
  for (const tarball of made) await lintPackage(tarball);
  for (const tarball of made) {
    const digest = createHash('sha256').update(readFileSync(tarball)).digest('hex');
    console.log(`${digest}  ${basename(tarball)}`);
  }
  say(`in ${out}; nothing is published (docs/releasing.md)`);
}

function refuseAt(problems) {
  if (problems.length > 0) throw new Error(`no release:\n${problems.map((problem) => `- ${problem}`).join('\n')}`);
}

try {
  await release();
} catch (error) {
  say(error.message);
  process.exitCode = 1;
}
