/**
 * Reasons that stop a release.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Platform,
  binaryProblems,
  cores,
  newestGlibc,
  platforms,
  readSharedObject,
  releaseProblems,
  top,
} from './support/scripts.ts';

const path = (name: string): string => fileURLToPath(new URL(name, top));
const all = platforms(path('.'));
const platform = (wanted: string): Platform => all.find(({ name }) => name === wanted) as Platform;
const { version } = JSON.parse(readFileSync(path('package.json'), 'utf8')) as { version: string };
const tag = `v${version}`;

/** The addon of this checkout, linked for this machine. */
const addonPath = path('ts/native/peerdma.linux-x64-gnu.node');
const addon = readFileSync(addonPath);

/** The addon with each occurrence of a word replaced by another of the same length. */
function patched(from: string, to: string): Buffer {
  return Buffer.from(addon.toString('latin1').replaceAll(`\0${from}\0`, `\0${to}\0`), 'latin1');
}

/** Offsets of fields of the ELF header, and values of them. */
const [CLASS, TYPE, MACHINE, SECTIONS_OFFSET, SECTION_COUNT] = [4, 16, 18, 40, 60];
const [CLASS_32, TYPE_EXECUTABLE, MACHINE_ARM64] = [1, 2, 183];

/** The addon with other bytes at an offset. */
function withBytes(offset: number, ...bytes: number[]): Buffer {
  const other = Buffer.from(addon);
  other.set(bytes, offset);
  return other;
}

function folderFor(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'peerdma-release-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Writes a file, and returns the problems of it as the binary of a platform. */
function problemsOf(t: ExecutionContext, bytes: Uint8Array, wanted: string): string[] {
  const file = join(folderFor(t), 'binary.node');
  writeFileSync(file, bytes);
  return binaryProblems(file, platform(wanted));
}

function git(folder: string, ...args: string[]): void {
  const identity = ['-c', 'user.name=test', '-c', 'user.email=test@localhost', '-c', 'commit.gpgsign=false'];
  const { status, stderr } = spawnSync('git', [...identity, ...args], { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/** Addresses for package.json, which has none yet. */
const ADDRESSES = {
  repository: { type: 'git', url: 'git+https://example.com/owner/name.git' },
  homepage: 'https://example.com/owner/name#readme',
  bugs: 'https://example.com/owner/name/issues',
};

/** A repository with all files that contain the version, committed and tagged. */
function tagged(t: ExecutionContext, addresses: object = ADDRESSES): string {
  const folder = folderFor(t);
  for (const name of ['package.json', 'package-lock.json', 'Cargo.toml', 'Cargo.lock', 'npm']) {
    cpSync(path(name), join(folder, name), { recursive: true });
  }
  const manifest = JSON.parse(readFileSync(path('package.json'), 'utf8')) as object;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, ...addresses }));
  git(folder, 'init', '--quiet');
  git(folder, 'add', '.');
  git(folder, 'commit', '--quiet', '-m', 'all');
  git(folder, 'tag', tag);
  return folder;
}

test('a clean checkout of its tag is released', (t) => {
  t.deepEqual(releaseProblems(tagged(t), tag), []);
});

test('a manifest without an address of the repository is rejected, for each field', (t) => {
  t.deepEqual(releaseProblems(tagged(t, { ...ADDRESSES, repository: undefined, bugs: undefined }), tag), [
    'package.json has no repository: fill it in (docs/releasing.md)',
    'package.json has no bugs: fill it in (docs/releasing.md)',
  ]);
});

test('a tag of another version is rejected', (t) => {
  const folder = tagged(t);
  git(folder, 'tag', 'v9.9.9');
  t.deepEqual(releaseProblems(folder, 'v9.9.9'), [
    `the tag is v9.9.9, and the version ${version}: the tag has to be ${tag}`,
  ]);
});

test('a checkout of another commit than the tag is rejected', (t) => {
  const folder = tagged(t);
  git(folder, 'commit', '--quiet', '--allow-empty', '-m', 'later');
  t.deepEqual(releaseProblems(folder, tag), [`what is checked out is not ${tag}: git checkout ${tag}`]);
});

test('uncommitted changes are rejected, including new files', (t) => {
  const folder = tagged(t);
  writeFileSync(join(folder, 'new'), '');
  t.deepEqual(releaseProblems(folder, tag), ['there are changes that are not committed:\n?? new']);
});

const PLACES = [
  ['package-lock.json', /"version": "[^"]*"/, '"version": "9.9.9"', 'package-lock.json'],
  [
    'package-lock.json',
    /("": \{\s*"name": "peerdma",\s*"version": )"[^"]*"/,
    '$1"9.9.9"',
    'package-lock.json, packages',
  ],
  ['Cargo.toml', /(\[workspace\.package\]\nversion = )"[^"]*"/, '$1"9.9.9"', 'Cargo.toml'],
  ['Cargo.lock', /(name = "peerdma-core"\nversion = )"[^"]*"/, '$1"9.9.9"', 'Cargo.lock, peerdma-core'],
  ['Cargo.lock', /(name = "peerdma-node"\nversion = )"[^"]*"/, '$1"9.9.9"', 'Cargo.lock, peerdma-node'],
  ...all.map(({ name }) => {
    const file = `npm/${name}/package.json`;
    return [file, /"version": "[^"]*"/, '"version": "9.9.9"', file] as const;
  }),
] as const;

for (const [file, pattern, replacement, told] of PLACES) {
  test(`a version that differs in ${told} is rejected`, (t) => {
    const folder = tagged(t);
    const name = join(folder, file);
    writeFileSync(name, readFileSync(name, 'utf8').replace(pattern, replacement));
    git(folder, 'commit', '--quiet', '-a', '-m', 'other');
    git(folder, 'tag', '--force', tag);
    t.deepEqual(releaseProblems(folder, tag), [`${told} has version 9.9.9, and package.json ${version}`]);
  });
}

test('the script fails with all reasons, and writes nothing', (t) => {
  const out = folderFor(t);
  const args = [path('scripts/release.mjs'), 'v9.9.9', '--out', join(out, 'made')];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  t.is(status, 1);
  t.regex(stderr, /no release:\n- the tag is v9\.9\.9, /);
  t.is(stderr.split('[peerdma]').length, 2, 'it reports one problem, and ends');
  t.throws(() => readFileSync(join(out, 'made')), { code: 'ENOENT' });
});

test('a missing binary of a platform is rejected, and so is one of another platform', async (t) => {
  const folder = folderFor(t);
  writeFileSync(join(folder, 'peerdma.linux-arm64-gnu.node'), addon);
  const build = (): Promise<string> => Promise.reject(new Error('it is not built here'));
  const { binaries, problems } = await cores([platform('linux-arm64-gnu'), platform('linux-x64-musl')], {
    folder,
    build,
  });
  t.is(binaries.size, 0);
  t.true(problems[0]?.endsWith('linux-arm64-gnu.node: it is for x64'), problems[0]);
  t.is(problems.at(-1), '@peerdma/binding-linux-x64-musl is missing: it is not built here');
});

test('a binary that was built elsewhere is preferred to a build', async (t) => {
  const folder = folderFor(t);
  const musl = platform('linux-x64-musl');
  writeFileSync(join(folder, musl.binary), patched('libc.so.6', 'libc.so\0.'));
  const build = (): Promise<string> => Promise.reject(new Error('it is not built here'));
  const { binaries, problems } = await cores([musl], { folder, build });
  t.deepEqual(problems, []);
  t.is(binaries.get(musl.name), join(folder, musl.binary));
});

test('a binary is for the processor and the C library of its platform', (t) => {
  const musl = patched('libc.so.6', 'libc.so\0.'); // the form in a binary for musl
  t.deepEqual(problemsOf(t, musl, 'linux-x64-gnu'), ['it is not linked with glibc']);
  t.deepEqual(problemsOf(t, musl, 'linux-x64-musl'), []);
  t.true(problemsOf(t, addon, 'linux-x64-musl').includes('it is linked with glibc'));
  const arm64 = withBytes(MACHINE, MACHINE_ARM64);
  t.true(problemsOf(t, arm64, 'linux-x64-gnu').includes('it is for arm64'));
  t.false(problemsOf(t, arm64, 'linux-arm64-gnu').includes('it is for x64'));
});

test('a binary that needs a newer glibc is rejected with its version', (t) => {
  const problems = problemsOf(t, patched('GLIBC_2.14', 'GLIBC_2.99'), 'linux-x64-gnu');
  t.true(problems.includes('it needs glibc 2.99, and may need 2.28'));
  t.deepEqual(problems.length, 1);
});

test('a symbol without a version is rejected', (t) => {
  const source = 'int unknown(void); int memfd_create(void); int call(void) { return unknown() + memfd_create(); }';
  const binary = join(folderFor(t), 'binary.node');
  const { stderr } = spawnSync('gcc', ['-shared', '-fPIC', '-x', 'c', '-', '-o', binary, '-Wl,--no-as-needed', '-lc'], {
    input: `${source}\n__attribute__((weak)) int absent(void); int weak(void) { return absent(); }`,
    encoding: 'utf8',
  });
  t.is(stderr, '');
  t.deepEqual(binaryProblems(binary, platform('linux-x64-gnu')), ['it needs unknown without a version']);
});

test('versions of glibc are compared as numbers, and symbols without a version count', (t) => {
  const object = { machine: 'x64', libraries: ['libc.so.6'], unversioned: [] };
  t.is(
    newestGlibc({ ...object, versions: ['GLIBC_2.4', 'GLIBC_2.17', 'GLIBC_2.2.5', 'GCC_3.0', 'GLIBC_PRIVATE'] }),
    '2.17',
  );
  t.is(newestGlibc({ ...object, versions: ['GLIBC_2.4'], unversioned: ['memfd_create'] }), '2.27');
});

test('reads machine, libraries and versions of this addon', (t) => {
  const { machine, libraries, versions } = readSharedObject(addonPath);
  t.is(machine, 'x64');
  t.true(libraries.includes('libc.so.6'));
  t.true(
    versions.includes('GLIBC_2.2.5') && versions.every((name) => /^(GLIBC|GCC)_[0-9.]+$/.test(name)),
    String(versions),
  );
});

test('a file that is not a shared object is rejected, and so is a truncated one', (t) => {
  const gnu = 'linux-x64-gnu';
  for (const bytes of [Buffer.from('module.exports = {}; // not an addon'), Buffer.alloc(0)]) {
    t.regex(problemsOf(t, bytes, gnu).join(), /^not an ELF file of 64 bits: readelf: Error: /);
  }
  t.deepEqual(problemsOf(t, withBytes(CLASS, CLASS_32), gnu), ['not an ELF file of 64 bits']);
  t.deepEqual(problemsOf(t, withBytes(TYPE, TYPE_EXECUTABLE), gnu), ['not a shared object']);
  const withoutSections = withBytes(SECTIONS_OFFSET, ...new Uint8Array(8));
  withoutSections.fill(0, SECTION_COUNT, SECTION_COUNT + 4);
  t.deepEqual(problemsOf(t, withoutSections, gnu), ['no dynamic symbols']);
  t.regex(problemsOf(t, addon.subarray(0, -1), gnu).join(), /^not a complete ELF file: readelf: /);
  for (let length = 0; length < addon.length; length += 4099) {
    t.is(problemsOf(t, addon.subarray(0, length), gnu).length, 1, `the first ${length} bytes`);
  }
});

test('a binary is rejected if readelf is missing', (t) => {
  const found = process.env['PATH'];
  process.env['PATH'] = folderFor(t);
  try {
    const problems = ['readelf: spawnSync readelf ENOENT. Install binutils.'];
    t.deepEqual(binaryProblems(addonPath, platform('linux-x64-gnu')), problems);
  } finally {
    process.env['PATH'] = found;
  }
});
