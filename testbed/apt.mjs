// Debian packages from suites that the machine does not list, without root and without a change to /etc/apt or
// /var/lib/apt: a private sources file and a private folder of package lists. Uses the machine's own mirror.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestbedError } from './errors.mjs';
import { capture } from './process.mjs';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** apt's label of a suite that it has not fetched yet. */
const UNKNOWN = '$(LABEL)';
const NEEDS = "the testbed's kernels are Debian packages: run it on Debian, or set apt up with a Debian mirror";

/**
 * @typedef {{ uri: string, release: string, label: string }} Source one package index that the machine's apt
 *   lists
 */

/**
 * Parses the output of `apt-get indextargets` in {@link machineSources}' format.
 *
 * @param {string} listing lines of `URI|RELEASE|LABEL|COMPONENT|KIND`; the label is `$(LABEL)` if apt has
 *   not fetched that suite yet
 * @returns {Source[]} the `main` components that are, or may be, Debian's
 */
export function parseSources(listing) {
  /** @type {Map<string, Source>} */
  const found = new Map();
  for (const line of listing.split('\n')) {
    const [uri = '', release = '', label = '', component, kind] = line.split('|');
    const debian = label === 'Debian' || label === 'Debian-Security' || label === UNKNOWN;
    if (kind === 'Packages' && component === 'main' && debian && /^(https?|file|ftp):/.test(uri))
      found.set(`${uri} ${release}`, { uri, release, label });
  }
  return [...found.values()];
}

/**
 * Returns the machine's own Debian sources.
 * @returns {Promise<Source[]>}
 */
async function machineSources() {
  const format = '$(REPO_URI)|$(RELEASE)|$(LABEL)|$(COMPONENT)|$(CREATED_BY)';
  const ask = (/** @type {string[]} */ ...extra) =>
    capture('apt-get', ['indextargets', ...extra, '--format', format], { seconds: 30, needs: NEEDS });
  const known = parseSources(await ask());
  // Before the first `apt-get update` the labels are unknown; the signature of the archive identifies Debian then.
  return known.length > 0 ? known : parseSources(await ask('--no-release-info'));
}

/**
 * Returns the lines of a private sources file.
 *
 * @param {readonly Source[]} sources the machine's own sources
 * @param {string} mirror URI of the mirror for the other suites
 * @param {readonly string[]} suites
 * @returns {string}
 */
export function sourcesList(sources, mirror, suites) {
  // Without a label, a source is Debian's only if it is on the mirror or has a suite's name.
  const known = sources.filter(
    ({ uri, release, label }) => label !== UNKNOWN || uri === mirror || release.endsWith('-security'),
  );
  const wanted = new Set([
    ...known.map(({ uri, release }) => `${uri} ${release}`),
    ...suites.map((suite) => `${mirror} ${suite}`),
  ]);
  return [...wanted].map((source) => `deb [target=Packages signed-by=${KEYRING}] ${source} main\n`).join('');
}

/**
 * Fills `folder` with a sources file and package lists for the machine's Debian suites and `suites`.
 *
 * @param {string} folder
 * @param {readonly string[]} suites
 * @returns {Promise<string[]>} the options with which apt-get and apt-cache use them
 */
export async function openApt(folder, suites) {
  if (!existsSync(KEYRING))
    throw new TestbedError(`${KEYRING} is missing. Install it: apt-get install debian-archive-keyring (${NEEDS})`);
  const sources = await machineSources();
  const mirrors = new Set(sources.filter(({ release }) => !release.includes('security')).map(({ uri }) => uri));
  if (mirrors.size === 0) throw new TestbedError(`apt lists no Debian mirror: ${NEEDS}`);
  await mkdir(join(folder, 'lists/partial'), { recursive: true });
  const options = [
    `Dir::Etc::sourcelist=${join(folder, 'sources.list')}`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State::Lists=${join(folder, 'lists')}`,
    'Dir::Cache::pkgcache=',
    'Dir::Cache::srcpkgcache=',
    'Acquire::Languages=none',
    'Acquire::Retries=3',
    'APT::Update::Error-Mode=any',
  ].flatMap((option) => ['-o', option]);
  let failure;
  for (const mirror of mirrors) {
    await writeFile(join(folder, 'sources.list'), sourcesList(sources, mirror, suites));
    try {
      await capture('apt-get', [...options, '-q', 'update'], { seconds: 180 });
      return options;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** The packages of one suite; see {@link withSuite}. */
export class Suite {
  /** @type {readonly string[]} */
  #options;

  /** @param {readonly string[]} options the apt options of {@link openApt} */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Returns the real packages whose name matches, the highest first. Numbers in names compare as numbers.
   * @param {RegExp} pattern
   * @returns {Promise<string[]>}
   */
  async names(pattern) {
    const literal = /^\^?([a-z0-9-]*)/.exec(pattern.source)?.[1] ?? '';
    const listing = await capture('apt-cache', [...this.#options, 'search', '--names-only', `^${literal}`], {
      seconds: 60,
    });
    const names = listing.split('\n').map((line) => line.split(' ', 1)[0] ?? '');
    const order = new Intl.Collator('en', { numeric: true });
    return names.filter((name) => pattern.test(name)).sort((a, b) => order.compare(b, a));
  }

  /**
   * Returns the highest version of a package.
   * @param {string} name
   * @returns {Promise<string>}
   */
  async version(name) {
    const listing = await capture('apt-cache', [...this.#options, 'show', '--no-all-versions', name], { seconds: 60 });
    const version = /^Version: (\S+)$/m.exec(listing)?.[1];
    if (version === undefined) throw new TestbedError(`apt has no version of ${name}`);
    return version;
  }

  /**
   * Downloads a package and unpacks it.
   * @param {string} name
   * @param {string} version
   * @param {string} folder the folder for its files
   */
  async unpack(name, version, folder) {
    const work = await mkdtemp(join(tmpdir(), 'peerdma-deb-'));
    try {
      const options = [...this.#options, '-o', 'APT::Sandbox::User=', '-q', 'download'];
      await capture('apt-get', [...options, `${name}=${version}`], { seconds: 600, cwd: work });
      const [file] = (await readdir(work)).filter((entry) => entry.endsWith('.deb'));
      if (file === undefined) throw new TestbedError(`apt-get download ${name} created no package`);
      await capture('dpkg', ['-x', join(work, file), folder], { seconds: 300, needs: NEEDS });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
}

/**
 * Opens a suite during `use`. The lists are fetched each time and removed afterwards: that takes a few seconds once a
 * week, and two processes never wait for each other's lock.
 *
 * @template T
 * @param {string} suite
 * @param {(suite: Suite) => Promise<T>} use
 * @returns {Promise<T>}
 */
export async function withSuite(suite, use) {
  const folder = await mkdtemp(join(tmpdir(), 'peerdma-apt-'));
  try {
    return await use(new Suite(await openApt(folder, [suite])));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
