/**
 * Each block of TypeScript in a page is a program that compiles and runs. Nothing has to be listed: pages and blocks are
 * found. A block that needs real devices says so behind the language of its fence, where no reader sees it:
 *
 *     ```ts vfio=edu,nvme
 *
 * names what stands in a guest of the testbed for the PCI addresses of the block, in their order. Such a block runs in
 * vfio/guides.test.ts, every other here. `console.log(…); // text` promises that `text` is printed. The blocks of a page run
 * in one folder, one after the other, so that one finds what those before it have written. Blocks of `diff` can be applied to
 * this checkout; those of `sh` are for commands.test.ts; `text` is no program.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brokenPromise, compiledExample, examplesOf, extractExamples, placed } from './support/examples.ts';
import { parsePage, readPages, top } from './support/pages.ts';

const LANGUAGES = ['ts', 'sh', 'diff', 'text'];

const pages = readPages();
const examples = extractExamples();
const tsc = spawnSync('node_modules/.bin/tsc', ['-p', 'tsconfig.emit.json'], {
  cwd: fileURLToPath(top),
  encoding: 'utf8',
});

test('every block says what it is', (t) => {
  for (const { page, line, language, mark } of pages.flatMap(({ blocks }) => blocks)) {
    t.true(LANGUAGES.includes(language), `${page}:${line}: "${language}" is none of ${LANGUAGES.join(', ')}`);
    if (language !== 'ts') t.is(mark, '', `${page}:${line}`);
  }
});

test('every block of TypeScript compiles', (t) => {
  t.is(tsc.status, 0, tsc.stdout);
});

for (const page of new Set(examples.map((example) => example.page))) {
  const runnable = examples.filter((example) => example.page === page && example.devices.length === 0);
  if (runnable.length === 0) continue;
  test(`the examples of ${page} do what they say`, (t) => {
    const scratch = mkdtempSync(join(tmpdir(), 'peerdma-guide-'));
    t.teardown(() => rmSync(scratch, { recursive: true }));
    for (const example of runnable) {
      const { where, code } = example;
      const script = join(scratch, 'example.mjs');
      // As a user's program, but for where it has the package from.
      writeFileSync(script, placed(compiledExample(example), new URL('target/js/ts/', top).href));
      const options = { cwd: scratch, encoding: 'utf8', timeout: 60_000 } as const;
      const { stdout, stderr, status } = spawnSync(process.execPath, [script], options);
      t.is(status, 0, `${where}: ${stderr}`);
      t.is(stderr, '', where);
      t.is(brokenPromise(code, stdout.split('\n').slice(0, -1)), undefined, where);
    }
  });
}

test('every diff can be applied to the checkout', (t) => {
  const diffs = pages.flatMap(({ blocks }) => blocks).filter(({ language }) => language === 'diff');
  t.true(diffs.length > 0);
  for (const { page, line, code } of diffs) {
    const options = { cwd: fileURLToPath(top), input: code, encoding: 'utf8' } as const;
    const { status, stderr } = spawnSync('git', ['apply', '--check', '-'], options);
    t.is(status, 0, `${page}:${line}: ${stderr}`);
  }
});

test('the examples that need devices run in the guests', (t) => {
  t.true(examples.some(({ devices }) => devices.length > 0));
  t.regex(readFileSync(new URL('__test__/vfio/all.ts', top), 'utf8'), /^import '\.\/guides\.test\.ts';$/m);
});

test('a mark that is none, or is not for the devices of the block, is found', (t) => {
  const page = (mark: string, code: string): string => `\`\`\`ts${mark}\n${code}\n\`\`\`\n`;
  const read = (text: string) => examplesOf(parsePage('x.md', text));
  const two = "open('0000:01:00.0', '0000:02:00.0', '0000:01:00.0')";
  t.deepEqual(read(page(' vfio=edu,nvme', two))[0]?.devices, [
    { kind: 'edu', bdf: '0000:01:00.0' },
    { kind: 'nvme', bdf: '0000:02:00.0' },
  ]);
  for (const mark of [' vfio=edu', ' vfio=edu,gpu', ' vfio=', ' vfio', ' skip', ' vfio=edu,nvme skip']) {
    t.throws(() => read(page(mark, two)), { message: /^x\.md:1: / }, mark);
  }
  t.throws(() => parsePage('x.md', '```ts\nopen'), { message: 'x.md:1: the block has no end' });
});

test('what is printed is compared with all that the comments say', (t) => {
  const code = 'console.log(1); // one\nif (x) console.log(2); // two\n';
  t.is(brokenPromise(code, ['one', 'two']), undefined);
  t.regex(brokenPromise(code, ['two', 'one']) ?? '', /"two" was to be printed/);
  t.regex(brokenPromise(code, ['one']) ?? '', /"two" was to be printed/);
  t.regex(brokenPromise(code, ['one', 'two', 'three']) ?? '', /"three" is printed/);
  t.is(brokenPromise(`${code}console.log(3);\n`, ['one', 'three', 'two']), undefined);
});
