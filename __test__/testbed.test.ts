// The parts of the testbed that need no guest.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';

interface Source {
  uri: string;
  release: string;
  label: string;
}

// The testbed is JavaScript, so that it runs before `npm ci`. These are the types that the tests use.
interface Testbed {
  quote(word: string): string;
  commandScript(command: string[], options: { folder: string; kernel: string; env: Record<string, string> }): string;
  findings(log: string): { fatal: string[]; suspect: string[] };
  lastLines(text: string, count: number): string;
  parseSources(listing: string): Source[];
  sourcesList(sources: Source[], mirror: string, suites: string[]): string;
  dependencies(image: Buffer): string[];
  lostOptions(options: string, config: string): string[];
  alone<T>(file: string, options: { seconds: number; onWait?: () => void }, use: () => Promise<T>): Promise<T>;
  logged(
    program: string,
    args: string[],
    options: { seconds: number; cwd: string; env: Record<string, string>; log: string; signal: AbortSignal },
  ): Promise<void>;
}

const folder = new URL('../testbed/', import.meta.url);
const parts = ['command', 'console', 'apt', 'debian-kernel', 'built-kernel', 'lock', 'process'].map(
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

test('the command gets its own variables, and no others of the host', (t) => {
  process.env['PEERDMA_TEST_OF_TESTBED'] = 'of the host';
  const script = testbed.commandScript(['env'], { folder: '/', kernel: '6.12', env: { GIVEN: "it's so" } });
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

test("a console's tail has no control sequences and no returns", (t) => {
  t.is(testbed.lastLines('\u001bc\u001b[2Jone\r\ntwo\r\n\u001b[1;31mthree\r\n\r\n', 2), 'two\nthree');
});

test('private sources are those of Debian on this machine, with the requested suites on its mirror', (t) => {
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

test('of sources that apt has not fetched yet, only possible ones are used', (t) => {
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

test("a module's dependencies come from its .modinfo", (t) => {
  const image = (text: string) => Buffer.from(`ELF\0license=GPL\0depends=${text}\0name=x\0`, 'latin1');
  t.deepEqual(testbed.dependencies(image('vfio-pci-core,irqbypass')), ['vfio_pci_core', 'irqbypass']);
  t.deepEqual(testbed.dependencies(image('')), []);
  t.deepEqual(testbed.dependencies(Buffer.from('nothing')), []);
});

test('reports an option that a kernel should have and lacks', (t) => {
  const options = '# why\nCONFIG_A=y\n\nCONFIG_B=1\nCONFIG_NAME="-x"\nCONFIG_AB=y\n';
  t.deepEqual(testbed.lostOptions(options, 'CONFIG_ABC=y\nCONFIG_A=y\nCONFIG_B=12\nCONFIG_NAME="-x"\n'), [
    'CONFIG_B=1',
    'CONFIG_AB=y',
  ]);
});

test('exclusive tasks run one after the other, also if one fails', async (t) => {
  const scratch = scratchFolder();
  const lock = join(scratch, 'deeper/lock');
  let inside = 0;
  const enter = async (fails: boolean) => {
    t.is(++inside, 1);
    // The others get every chance to start: these are turns of the event loop and of other processes.
    for (let turn = 0; turn < 5; turn++) execFileSync('true');
    await new Promise((resolve) => setTimeout(resolve, 20));
    inside--;
    if (fails) throw new Error('as was to be');
    return 'done';
  };
  const all = [false, true, false].map((fails) => testbed.alone(lock, { seconds: 60 }, () => enter(fails)));
  const results = await Promise.allSettled(all);
  t.deepEqual(
    results.map((each) => (each.status === 'fulfilled' ? each.value : String(each.reason))),
    ['done', 'Error: as was to be', 'done'],
  );
});

test('a lock that is not released in time is an error', async (t) => {
  const lock = join(scratchFolder(), 'lock');
  await testbed.alone(lock, { seconds: 60 }, async () => {
    const error = await t.throwsAsync(testbed.alone(lock, { seconds: 0 }, () => Promise.resolve(t.fail('let in'))));
    t.regex(error?.message ?? '', /locked by another process/);
  });
});

test('the failure of a logged program names the log and shows its end; an interrupted one is ended', async (t) => {
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
