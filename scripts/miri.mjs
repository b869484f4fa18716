// The version of Miri that the tests use.
import { spawnSync } from 'node:child_process';
import { top } from './command.mjs';

/** Only nightly toolchains have Miri. The date pins one version, because another version may find other faults. */
const TOOLCHAIN = 'nightly-2026-10-30';

/** First words of a command of cargo for Miri. */
export const MIRI = [`+${TOOLCHAIN}`, 'miri'];

/** The command that installs it. */
export const MIRI_INSTALL = `rustup toolchain install ${TOOLCHAIN} --profile minimal -c miri -c rust-src`.split(' ');

/** @returns {boolean} whether it is installed */
export function hasMiri() {
  return spawnSync('cargo', [...MIRI, '--version'], { cwd: top }).status === 0;
}
