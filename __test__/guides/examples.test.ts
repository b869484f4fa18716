/**
 * Compiles and runs each block of TypeScript in the pages. Pages and blocks are found, not listed. A block that needs
 * real devices or KVM has a mark behind the language of its fence, which renderers hide:
 *
 *     ```ts vfio=edu,nvme
 *     ```ts kvm
 *
 * The first mark names the emulated devices for the PCI addresses of the block, in their order. Such a block runs in
 * vfio/guides.test.ts, one for KVM in vfio/kvm/guide.test.ts, and all others here. `console.log(…); // text` must print
 * `text`. The blocks of a page run in one folder, one after the other, so that a block can read the files of earlier
 * ones. Blocks of `diff` can be applied to this checkout, those of `sh` are checked by commands.test.ts, and `text` is
 * not a program.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brokenPromise, examplesOf, extractExamples, placed, runsAnywhere } from './support/examples.ts';
import { parsePage, readPages, top } from './support/pages.ts';

const LOADER = `--import=${new URL('scripts/typescript/register.mjs', top).href}`;
const LANGUAGES = ['ts', 'sh', 'diff', 'text'];

const pages = readPages();
const examples = extractExamples();
const tsc = spawnSync('node_modules/.bin/tsc', ['-p', '__test__/guides/tsconfig.json'], {
  cwd: fileURLToPath(top),
  encoding: 'utf8',
});

test('every block has a language and a valid mark', (t) => {
  for (const { page, line, language, mark } of pages.flatMap(({ blocks }) => blocks)) {
    t.true(LANGUAGES.includes(language), `${page}:${line}: "${language}" is not one of ${LANGUAGES.join(', ')}`);
    if (language !== 'ts') t.is(mark, '', `${page}:${line}`);
  }
});

test('every block of TypeScript compiles', (t) => {
  t.is(tsc.status, 0, tsc.stdout);
});

for (const page of new Set(examples.map((example) => example.page))) {
  const runnable = examples.filter((example) => example.page === page && runsAnywhere(example));
  if (runnable.length === 0) continue;
  test(`the examples of ${page} print the lines in their comments`, (t) => {
    const scratch = mkdtempSync(join(tmpdir(), 'peerdma-guide-'));
    t.teardown(() => rmSync(scratch, { recursive: true }));
    for (const example of runnable) {
      const { where, code } = example;
      const script = join(scratch, 'example.ts');
      // As a user's program, except for the address of the package.
      writeFileSync(script, placed(code, { folder: new URL('ts/', top).href, extension: '.ts' }));
      const options = { cwd: scratch, encoding: 'utf8', timeout: 60_000 } as const;
      const { stdout, stderr, status } = spawnSync(process.execPath, [LOADER, script], options);
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

test('the examples that need devices or KVM run in the guests', (t) => {
  t.true(examples.some(({ devices }) => devices.length > 0));
  t.regex(readFileSync(new URL('__test__/vfio/all.ts', top), 'utf8'), /^import '\.\/guides\.test\.ts';$/m);
  t.true(examples.some(({ kvm }) => kvm));
  t.regex(readFileSync(new URL('__test__/vfio/kvm.ts', top), 'utf8'), /^import '\.\/kvm\/guide\.test\.ts';$/m);
});

test('finds an invalid mark, and one that does not match the devices of the block', (t) => {
  const page = (mark: string, code: string): string => `\`\`\`ts${mark}\n${code}\n\`\`\`\n`;
  const read = (text: string) => examplesOf(parsePage('x.md', text));
  const two = "open('0000:01:00.0', '0000:02:00.0', '0000:01:00.0')";
  t.deepEqual(read(page(' vfio=edu,nvme', two))[0]?.devices, [
    { kind: 'edu', bdf: '0000:01:00.0' },
    { kind: 'nvme', bdf: '0000:02:00.0' },
  ]);
  t.like(read(page(' kvm', two))[0], { devices: [], kvm: true });
  t.like(read(page('', two))[0], { devices: [], kvm: false });
  for (const mark of [
    ' kvm=1',
    ' kvm vfio=edu,nvme',
    ' vfio=edu',
    ' vfio=edu,gpu',
    ' vfio=',
    ' vfio',
    ' skip',
    ' vfio=edu,nvme skip',
  ]) {
    t.throws(() => read(page(mark, two)), { message: /^x\.md:1: / }, mark);
  }
  t.throws(() => parsePage('x.md', '```ts\nopen'), { message: 'x.md:1: the block has no end' });
});

test('compares the printed lines with all comments', (t) => {
  const code = 'console.log(1); // one\nif (x) console.log(2); // two\n';
  t.is(brokenPromise(code, ['one', 'two']), undefined);
  t.regex(brokenPromise(code, ['two', 'one']) ?? '', /"two" was to be printed/);
  t.regex(brokenPromise(code, ['one']) ?? '', /"two" was to be printed/);
  t.regex(brokenPromise(code, ['one', 'two', 'three']) ?? '', /"three" is printed/);
  t.is(brokenPromise(`${code}console.log(3);\n`, ['one', 'three', 'two']), undefined);
});
