// The native core for each platform: built here where its target can be had, or brought from where it was built.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { say, top } from '../command.mjs';
import { NAPI_BUILD, must, when } from '../setup.mjs';
import { binaryProblems } from './binary.mjs';
import { compilerFor } from './toolchain.mjs';

/**
 * Builds the native core for a platform, for as old a glibc as packages promise.
 *
 * @param {import("./platforms.mjs").Platform} platform
 * @returns {Promise<string>} path of the addon
 * @throws {Error} where it can't be built here
 */
export async function buildCore(platform) {
  const { name, target, binary } = platform;
  const folder = join('target/cores', name);
  const product = join(folder, binary);
  if (!hasStandardLibrary(target)) throw new Error(`no standard library for it: rustup target add ${target}`);
  const args = [...NAPI_BUILD, '--target', target, '--output-dir', folder];
  const sources = ['Cargo.toml', 'Cargo.lock', 'crates', 'scripts/release/core.mjs', 'scripts/release/toolchain.mjs'];
  mkdirSync(join(top, folder), { recursive: true });
  await when(join(folder, '.stamp'), sources, product, async () => {
    const how = await linking(target);
    say(`building the native core for ${name} …`);
    await must('node_modules/.bin/napi', [...args, ...how.args], { quiet: true, env: how.env });
  });
  return join(top, product);
}

/** How a binary for a target is linked on a machine that need not be like it. */
async function linking(target) {
  // zig has musl, and an unwinder for it.
  if (target.endsWith('-musl')) return { args: ['--cross-compile'], env: {} };
  const compiler = await compilerFor(target);
  const variable = `CARGO_TARGET_${target.toUpperCase().replaceAll('-', '_')}_RUSTFLAGS`;
  // As flags of the target alone: programs that run while building are linked by this machine's own compiler. Where Rust
  // links by lld, it asks gcc for that in a word which this old gcc doesn't know.
  const lld = target.startsWith('x86_64-') ? ' -Clinker-features=-lld' : '';
  return { args: [], env: { [variable]: `-Clinker=${compiler}${lld}` } };
}

function hasStandardLibrary(target) {
  const asked = spawnSync('rustc', ['--print', 'target-libdir', '--target', target], { encoding: 'utf8', cwd: top });
  return asked.status === 0 && existsSync(asked.stdout.trim());
}

/**
 * Finds the addon of each platform, and looks at it.
 *
 * @param {import("./platforms.mjs").Platform[]} all
 * @param {{ folder?: string | undefined, build?: typeof buildCore }} options `folder` has addons that were built elsewhere
 * @returns {Promise<{ binaries: Map<string, string>, problems: string[] }>} paths by the names of platforms; and why some
 *   are missing from them
 */
export async function cores(all, { folder, build = buildCore }) {
  const binaries = new Map();
  const problems = [];
  for (const platform of all) {
    const brought = folder === undefined ? undefined : join(folder, platform.binary);
    try {
      const path = brought !== undefined && existsSync(brought) ? brought : await build(platform);
      const wrong = binaryProblems(readFileSync(path), platform);
      if (wrong.length === 0) binaries.set(platform.name, path);
      problems.push(...wrong.map((problem) => `${platform.manifest.name}: of ${path}: ${problem}`));
    } catch (error) {
      problems.push(`${platform.manifest.name} is missing: ${error.message}`);
    }
  }
  return { binaries, problems };
}
