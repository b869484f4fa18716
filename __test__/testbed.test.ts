// The parts of the testbed that run without a guest.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';

interface Source {
  uri: string;
  release: string;
  label: string;
}

// The testbed is JavaScript, so that it runs before `npm ci`.
interface Testbed {
  quote(word: string): string;
  commandScript(
    command: string[],
    options: { folder: string; kernel: string; image: string; env: Record<string, string> },
  ): string;
  findings(log: string): { fatal: string[]; suspect: string[] };
  lastLines(text: string, count: number): string;
  parseSources(listing: string): Source[];
  sourcesList(sources: Source[], mirror: string, suites: string[]): string;
  dependencies(image: Buffer): string[];
  lostOptions(options: string[], config: string): string[];
  optionLines(text: string): string[];
  buildKey(inputs: { source: string; version: string; options: string[]; compiler: string }): string;
  buildProblem(folder: string, series: string, options: string[]): Promise<string | undefined>;
  packageProblem(folder: string, series: string): Promise<string | undefined>;
  cachedFolder(
    name: string,
    build: (folder: string) => Promise<void>,
    check?: (folder: string) => Promise<string | undefined>,
  ): Promise<string>;
  alone<T>(file: string, options: { seconds: number; onWait?: () => void }, use: () => Promise<T>): Promise<T>;
  logged(
    program: string,
    args: string[],
    options: { seconds: number; cwd: string; env: Record<string, string>; log: string; signal: AbortSignal },
  ): Promise<void>;
}

const folder = new URL('../testbed/', import.meta.url);
const parts = ['command', 'console', 'apt', 'debian-kernel', 'built-kernel', 'cache', 'lock', 'process'].map(
  (name) => import(new URL(`${name}.mjs`, folder).href),
);
const testbed: Testbed = Object.assign({}, ...(await Promise.all(parts)));

test('a shell reads every quoted word back unchanged', (t) => {
  const word = fc.string({ unit: 'binary' }).filter((text) => !text.includes('\0'));
  fc.assert(
    fc.property(fc.array(word, { maxLength: 4 }), (words) => {
      const script = `printf '%s\\0' end ${words.map((each) => testbed.quote(each)).join(' ')}`;
      const out = execFileSync('sh', ['-c', script], { encoding: 'utf8' });
      t.is(out, ['end', ...words].map((each) => `${each}\0`).join(''));
    }),
    { numRuns: 30 },
  );
});

test('the command has the given variables, and no others of the host', (t) => {
  process.env['PEERDMA_TEST_OF_TESTBED'] = 'of the host';
  const script = testbed.commandScript(['env'], {
    folder: '/',
    kernel: '6.12',
    image: '/boot/bzImage',
    env: { GIVEN: "it's so" },
  });
  const out = execFileSync('sh', ['-c', script], { encoding: 'utf8', env: { testbed_env: 'FROM_GUEST=1' } });
  t.true(out.includes("GIVEN=it's so\n"));
  t.true(out.includes('FROM_GUEST=1\n'));
  t.true(out.includes('PEERDMA_TESTBED_KERNEL=6.12\n'));
  t.false(out.includes('PEERDMA_TEST_OF_TESTBED'));
});

test('distinguishes a broken kernel from a slow one', (t) => {
  const fatal = [
    '[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000000',
    '[    3.1] Oops: 0002 [#1] PREEMPT SMP NOPTI',
    '[    3.1] Kernel panic - not syncing: sysrq triggered crash',
  ];
  const suspect = [
    '[    9.0] WARNING: CPU: 1 PID: 77 at drivers/vfio/vfio_main.c:1',
    '[    9.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [node:88]',
  ];
  const harmless = '[    1.0] DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0x1000';
  const log = [...fatal, ...suspect, harmless].join('\r\n');
  t.deepEqual(testbed.findings(`${log}\n${log}`), { fatal, suspect });
});

test('removes control sequences and returns from the end of a console', (t) => {
  t.is(testbed.lastLines('\u001bc\u001b[2Jone\r\ntwo\r\n\u001b[1;31mthree\r\n\r\n', 2), 'two\nthree');
});

test("lists the machine's Debian sources, and the requested suites on its mirror", (t) => {
  const sources = testbed.parseSources(
    [
      'http://mirror.invalid/debian/|bookworm|Debian|main|Packages',
      'http://mirror.invalid/debian/|bookworm|Debian|main|Translations',
      'http://mirror.invalid/debian/|bookworm|Debian|contrib|Packages',
      'http://mirror.invalid/security/|bookworm-security|Debian-Security|main|Packages',
      'http://other.invalid/|stable|Other|main|Packages',
      'cdrom:/disc/|bookworm|Debian|main|Packages',
      '',
    ].join('\n'),
  );
  t.deepEqual(
    sources.map(({ release }) => release),
    ['bookworm', 'bookworm-security'],
  );
  const list = testbed.sourcesList(sources, 'http://mirror.invalid/debian/', ['bookworm-backports', 'bookworm']);
  t.deepEqual(
    list
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^deb \[[^\]]*\] /, '')),
    [
      'http://mirror.invalid/debian/ bookworm main',
      'http://mirror.invalid/security/ bookworm-security main',
      'http://mirror.invalid/debian/ bookworm-backports main',
    ],
  );
});

test('omits sources without a label that are not on the mirror', (t) => {
  const unknown = '$(LABEL)';
  const sources = [
    { uri: 'http://mirror.invalid/debian/', release: 'bookworm', label: unknown },
    { uri: 'http://mirror.invalid/security/', release: 'bookworm-security', label: unknown },
    { uri: 'http://other.invalid/', release: 'nodistro', label: unknown },
  ];
  const list = testbed.sourcesList(sources, 'http://mirror.invalid/debian/', ['bookworm-backports']);
  t.false(list.includes('nodistro'));
  t.is(list.trimEnd().split('\n').length, 3);
});

test("reads a module's dependencies from its .modinfo", (t) => {
  const image = (text: string) => Buffer.from(`ELF\0license=GPL\0depends=${text}\0name=x\0`, 'latin1');
  t.deepEqual(testbed.dependencies(image('vfio-pci-core,irqbypass')), ['vfio_pci_core', 'irqbypass']);
  t.deepEqual(testbed.dependencies(image('')), []);
  t.deepEqual(testbed.dependencies(Buffer.from('nothing')), []);
});

test('returns the options that a configuration lacks', (t) => {
  const options = testbed.optionLines('# why\nCONFIG_A=y\n\nCONFIG_B=1\nCONFIG_NAME="-x"\nCONFIG_AB=y\n');
  t.deepEqual(testbed.lostOptions(options, 'CONFIG_ABC=y\nCONFIG_A=y\nCONFIG_B=12\nCONFIG_NAME="-x"\n'), [
    'CONFIG_B=1',
    'CONFIG_AB=y',
  ]);
});

test('a kernel is built again if its options, its version or its compiler change, and not for a comment', (t) => {
  const options = testbed.optionLines('# one comment\nCONFIG_A=y\n');
  const inputs = { source: 'linux-source-7.3', version: '7.3.1', options, compiler: 'gcc 12' };
  const key = testbed.buildKey(inputs);
  t.is(testbed.buildKey({ ...inputs, options: testbed.optionLines('\n# another\nCONFIG_A=y\n\n') }), key);
  const others = [{ options: ['CONFIG_A=m'] }, { version: '7.3.2' }, { compiler: 'gcc 13' }, { source: 'linux' }];
  const keys = others.map((other) => testbed.buildKey({ ...inputs, ...other }));
  t.is(new Set([key, ...keys]).size, 1 + others.length);
});

test('rejects a cached kernel that is truncated, has another version, or lacks options or modules', async (t) => {
  const folder = scratchFolder();
  mkdirSync(join(folder, 'modules'));
  for (const name of ['bzImage', 'vmlinuz']) writeFileSync(join(folder, name), kernelImage('7.3.4-peerdma (a)'));
  writeFileSync(join(folder, 'config'), 'CONFIG_A=y\n');
  writeFileSync(join(folder, 'modules/list'), '9p.ko\n');
  writeFileSync(join(folder, 'modules/9p.ko'), '');
  t.is(await testbed.buildProblem(folder, '7.3', ['CONFIG_A=y']), undefined);
  t.is(await testbed.packageProblem(folder, '7.3'), undefined);

  t.regex((await testbed.buildProblem(folder, '7.30', ['CONFIG_A=y'])) ?? '', /is Linux 7\.3\.4-peerdma/);
  t.is(await testbed.buildProblem(folder, '7.3', ['CONFIG_B=y']), 'its configuration lacks CONFIG_B=y');
  truncateSync(join(folder, 'bzImage'), 100_000);
  t.regex((await testbed.buildProblem(folder, '7.3', [])) ?? '', /has 100000 bytes instead of 197\d{3}/);
  writeFileSync(join(folder, 'bzImage'), 'not a kernel');
  t.regex((await testbed.buildProblem(folder, '7.3', [])) ?? '', /is not a kernel/);
  rmSync(join(folder, 'bzImage'));
  t.regex((await testbed.buildProblem(folder, '7.3', [])) ?? '', /does not exist/);
  rmSync(join(folder, 'modules/9p.ko'));
  t.is(await testbed.packageProblem(folder, '7.3'), 'modules are missing: 9p.ko');
  rmSync(join(folder, 'modules'), { recursive: true });
  t.is(await testbed.packageProblem(folder, '7.3'), 'modules are missing: all');
});

/**
 * An image with the fields of the boot protocol that the testbed reads. Linux describes them in
 * Documentation/arch/x86/boot.rst.
 */
function kernelImage(version: string): Buffer {
  const [setupSectors, paragraphs, versionOffset] = [1, 0x3000, 0x20];
  const image = Buffer.alloc((setupSectors + 1) * 512 + paragraphs * 16);
  image.writeUInt8(setupSectors, 0x1f1);
  image.writeUInt32LE(paragraphs, 0x1f4);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(versionOffset, 0x20e);
  image.write(`${version}\0`, versionOffset + 0x200, 'latin1');
  return image;
}

test.serial('builds a cached folder again if its content has a problem', async (t) => {
  const root = scratchFolder();
  const { PEERDMA_CACHE } = process.env;
  process.env['PEERDMA_CACHE'] = root;
  t.teardown(() => {
    if (PEERDMA_CACHE === undefined) delete process.env['PEERDMA_CACHE'];
    else process.env['PEERDMA_CACHE'] = PEERDMA_CACHE;
  });
  let builds = 0;
  const build = async (content: string) =>
    testbed.cachedFolder(
      'kernel/x',
      async (folder) => {
        builds++;
        await Promise.resolve(writeFileSync(join(folder, 'file'), content));
      },
      async (folder) => (readFileSync(join(folder, 'file'), 'utf8') === 'right' ? undefined : 'a wrong file'),
    );
  await t.throwsAsync(build('wrong'), { message: 'kernel/x: the build is wrong: a wrong file' });
  const folder = await build('right');
  t.is(await build('right'), folder);
  t.is(builds, 2);
  writeFileSync(join(folder, 'file'), 'damaged');
  t.is(await build('right'), folder);
  t.is(readFileSync(join(folder, 'file'), 'utf8'), 'right');
  t.is(builds, 3);
  t.deepEqual(readdirSync(join(root, 'testbed/kernel')), ['x']);
});

test('runs the users of a lock one after the other, also if one fails', async (t) => {
  const scratch = scratchFolder();
  const lock = join(scratch, 'deeper/lock');
  let inside = 0;
  const enter = async (fails: boolean) => {
    t.is(++inside, 1);
    // Turns of the event loop and of other processes, in which the others could enter.
    for (let turn = 0; turn < 5; turn++) execFileSync('true');
    await new Promise((resolve) => setTimeout(resolve, 20));
    inside--;
    if (fails) throw new Error('the second user');
    return 'done';
  };
  const all = [false, true, false].map((fails) => testbed.alone(lock, { seconds: 60 }, () => enter(fails)));
  const results = await Promise.allSettled(all);
  t.deepEqual(
    results.map((each) => (each.status === 'fulfilled' ? each.value : String(each.reason))),
    ['done', 'Error: the second user', 'done'],
  );
});

test('reports a lock that another process holds for too long', async (t) => {
  const lock = join(scratchFolder(), 'lock');
  await testbed.alone(lock, { seconds: 60 }, async () => {
    const error = await t.throwsAsync(testbed.alone(lock, { seconds: 0 }, () => Promise.resolve(t.fail('entered'))));
    t.regex(error?.message ?? '', /locked by another process/);
  });
});

test('names the log of a failed program and prints its end; ends an interrupted program', async (t) => {
  const scratch = scratchFolder();
  const log = join(scratch, 'log');
  writeFileSync(log, 'before\n');
  const options = { seconds: 3600, cwd: scratch, env: { PATH: '/usr/bin:/bin', ONLY: 'this' }, log };
  const { signal } = new AbortController();
  await testbed.logged('sh', ['-c', 'echo "$ONLY"; pwd; touch made'], { ...options, signal });
  t.is(readFileSync(log, 'utf8'), `before\nthis\n${scratch}\n`);
  t.deepEqual(readdirSync(scratch).sort(), ['log', 'made']);

  const failed = await t.throwsAsync(testbed.logged('sh', ['-c', 'echo broken >&2; exit 3'], { ...options, signal }));
  t.regex(failed?.message ?? '', /failed with 3/);
  t.true(failed?.message.includes(`${log}:`));
  t.true(failed?.message.endsWith('broken'));

  const interrupt = new AbortController();
  const running = testbed.logged('sleep', ['1000'], { ...options, signal: interrupt.signal });
  interrupt.abort();
  t.regex((await t.throwsAsync(running))?.message ?? '', /interrupted/);
});

const scratchFolders: string[] = [];

function scratchFolder(): string {
  const made = mkdtempSync(join(tmpdir(), 'peerdma-testbed-test-'));
  scratchFolders.push(made);
  return made;
}

test.after.always(() => {
  for (const made of scratchFolders) rmSync(made, { recursive: true });
});
