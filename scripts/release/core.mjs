// Provides the native core for each platform: builds it here, or takes a binary that was built on another machine.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { say, top } from '../command.mjs';
import { NAPI_BUILD, must, when } from '../setup.mjs';
import { binaryProblems } from './binary.mjs';
import { compilerFor } from './toolchain.mjs';

/**
 * Builds the native core for a platform, linked with the glibc that the packages support.
 *
 * @param {import("./platforms.mjs").Platform} platform
 * @returns {Promise<string>} path of the addon
 * @throws {Error} when this machine cannot build it
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

/** Returns the arguments and the environment that link a binary for another target. */
async function linking(target) {
  // zig includes musl and an unwinder for it.
  if (target.endsWith('-musl')) return { args: ['--cross-compile'], env: {} };
  const compiler = await compilerFor(target);
  const variable = `CARGO_TARGET_${target.toUpperCase().replaceAll('-', '_')}_RUSTFLAGS`;
  // Flags of the target only: the compiler of this machine links build scripts. Rust's default linker on x86-64 is lld,
  // whose gcc option this old gcc does not support.
  const lld = target.startsWith('x86_64-') ? ' -Clinker-features=-lld' : '';
  return { args: [], env: { [variable]: `-Clinker=${compiler}${lld}` } };
}

function hasStandardLibrary(target) {
  const asked = spawnSync('rustc', ['--print', 'target-libdir', '--target', target], { encoding: 'utf8', cwd: top });
  return asked.status === 0 && existsSync(asked.stdout.trim());
}

/**
 * Finds and checks the addon of each platform.
 *
 * @param {import("./platforms.mjs").Platform[]} all
 * @param {{ folder?: string | undefined, build?: typeof buildCore }} options `folder` has addons of other machines
 * @returns {Promise<{ binaries: Map<string, string>, problems: string[] }>} paths by names of platforms, and the
 *   reasons for missing ones
 */
export async function cores(all, { folder, build = buildCore }) {
  const binaries = new Map();
  const problems = [];
  for (const platform of all) {
    const prebuilt = folder === undefined ? undefined : join(folder, platform.binary);
    try {
      const path = prebuilt !== undefined && existsSync(prebuilt) ? prebuilt : await build(platform);
      const wrong = binaryProblems(path, platform);
      if (wrong.length === 0) binaries.set(platform.name, path);
      problems.push(...wrong.map((problem) => `${platform.manifest.name}: of ${path}: ${problem}`));
    } catch (error) {
      problems.push(`${platform.manifest.name} is missing: ${error.message}`);
    }
  }
  return { binaries, problems };
}
