// The programs and files of Debian packages that the tests require. Works before `npm ci`.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openApt } from '../testbed/apt.mjs';
import { run, say } from './command.mjs';
import { MIRI_INSTALL, hasMiri } from './miri.mjs';

/**
 * @typedef {object} Prerequisite
 * @property {string} [program] a program on the PATH
 * @property {string} [file] a file of a package without a program
 * @property {string} from the Debian package
 * @property {string} [skipped] the tests that are skipped without it
 */

/** @type {readonly Prerequisite[]} */
export const BUILD = [
  { program: 'gcc', from: 'gcc' },
  { file: '/usr/include/stdlib.h', from: 'libc6-dev' },
];

/** @type {readonly Prerequisite[]} */
const GUESTS = [
  { program: 'qemu-system-x86_64', from: 'qemu-system-x86' },
  { file: '/etc/ssl/certs/ca-certificates.crt', from: 'ca-certificates' },
  { file: '/usr/share/keyrings/debian-archive-keyring.gpg', from: 'debian-archive-keyring' },
  // For the build of a kernel (testbed/built-kernel.mjs).
  { program: 'make', from: 'make' },
  { program: 'flex', from: 'flex' },
  { program: 'bison', from: 'bison' },
  { program: 'bc', from: 'bc' },
  { program: 'ld', from: 'binutils' },
  { program: 'xz', from: 'xz-utils' },
  { file: '/usr/include/gelf.h', from: 'libelf-dev' },
];

/** @type {readonly Prerequisite[]} */
export const ALL = [
  ...BUILD,
  ...GUESTS,
  { program: 'chromium', from: 'chromium', skipped: 'the tests of pages' },
  { program: 'qemu-storage-daemon', from: 'qemu-utils', skipped: 'the tests of a vhost-user disk' },
  { program: 'iasl', from: 'acpica-tools', skipped: 'the tests that disassemble ACPI tables' },
];

/** QEMU 10 is preferred to Debian 12's own 7.2. */
const BACKPORTS = 'bookworm-backports';
const INSTALL = ['install', '-q', '-y', '--no-install-recommends'];
const LISTS_SECONDS = '600';
const INSTALL_SECONDS = '1200';

/**
 * Returns the prerequisites that are missing.
 *
 * @param {readonly Prerequisite[]} prerequisites
 * @param {{ path?: string, root?: string }} [machine] `root`: a folder in place of /
 * @returns {Prerequisite[]}
 */
export function missing(prerequisites, { path = process.env.PATH ?? '', root = '/' } = {}) {
  return prerequisites.filter(({ program, file }) =>
    program === undefined ? !existsSync(join(root, file ?? '')) : !isOnPath(program, path),
  );
}

/**
 * Installs what is missing, as root on Debian.
 *
 * @param {readonly Prerequisite[]} required
 * @throws {Error} with the command that installs it, as another user or on another system; or if Rust is missing
 */
export async function prerequisites(required) {
  const path = process.env.PATH ?? '';
  if (!isOnPath('cargo', path)) throw new Error('missing: cargo. Install Rust 1.88 or later (https://rustup.rs).');
  const lacking = missing(required);
  const isRoot = process.getuid?.() === 0;
  if (lacking.length > 0 && isRoot && isOnPath('apt-get', path)) await install(lacking.map(({ from }) => from));
  else report(lacking);
  if (isRoot && required === ALL) await installMiri();
}

/** @param {Prerequisite[]} lacking */
function report(lacking) {
  const names = lacking.map(({ program, file }) => program ?? file).join(', ');
  const command = `apt-get install ${lacking.map(({ from }) => from).join(' ')}`;
  if (lacking.some(({ skipped }) => skipped === undefined)) {
    const canBuild = !lacking.some((each) => BUILD.includes(each));
    const rest = canBuild ? '\nThe tests that do not require them run with: npm run test:unit' : '';
    throw new Error(`missing: ${names}. Install the packages as root: ${command}${rest}`);
  }
  for (const { program, skipped } of lacking) say(`without ${program}, ${skipped} are skipped. Install it: ${command}`);
}

/** @param {string[]} packages */
async function install(packages) {
  say(`apt-get install ${packages.join(' ')} …`);
  const work = mkdtempSync(join(tmpdir(), 'peerdma-apt-'));
  try {
    const options = await openApt(work, [BACKPORTS]).catch((error) => {
      say(`${BACKPORTS} is unavailable, so Debian's own packages are installed: ${error.message}`);
    });
    const backports = options !== undefined && (await apt([...options, '-t', BACKPORTS, ...INSTALL, ...packages]));
    if (backports) return;
    if (options === undefined) await apt(['-q', 'update'], LISTS_SECONDS);
    if (!(await apt([...(options ?? []), ...INSTALL, ...packages])))
      throw new Error(`apt-get install ${packages.join(' ')} failed`);
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** @returns {Promise<boolean>} whether it succeeded */
async function apt(args, seconds = INSTALL_SECONDS) {
  const env = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' };
  return (await run('timeout', [seconds, 'apt-get', ...args], { env })) === 0;
}

/** The tests report a missing Miri as skipped. */
async function installMiri() {
  if (!isOnPath('rustup', process.env.PATH ?? '') || hasMiri()) return;
  say(`${MIRI_INSTALL.join(' ')} …`);
  await run('timeout', [LISTS_SECONDS, ...MIRI_INSTALL, '--no-self-update']);
}

/** Prints the versions of what the tests use. */
export function printVersions() {
  for (const program of ['qemu-system-x86_64', 'gcc', 'chromium', 'cargo']) {
    const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
    say(stdout?.split('\n', 1)[0] || `no ${program}`);
  }
  say(`node ${process.version}`);
}

/** @param {string} program @param {string} path */
function isOnPath(program, path) {
  return path.split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
