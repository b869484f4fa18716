/**
 * The examples of the README and of the guides are TypeScript that compiles, and the first one does what it says.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const top = new URL('..', import.meta.url);
const pages = ['README.md', 'docs/assigned-devices.md', 'docs/drivers.md', 'docs/looking-inside.md'].map((page) =>
  readFileSync(new URL(page, top), 'utf8'),
);
const examples = pages.flatMap((page) => [...page.matchAll(/```ts\n(.*?)```/gs)].map(([, code = '']) => code));

/** A folder in which the examples stand as files that import this package's sources. */
const folder = new URL('target/readme/', top);
mkdirSync(folder, { recursive: true });
for (const [index, code] of examples.entries()) {
  writeFileSync(new URL(`example-${index}.ts`, folder), code.replaceAll("from 'peerdma'", "from '../../ts/index.ts'"));
}
writeFileSync(
  new URL('tsconfig.json', folder),
  JSON.stringify({ extends: '../../tsconfig.json', compilerOptions: { rootDir: '../..' }, include: ['*.ts'] }),
);

test('the examples of the README and of the guides compile', (t) => {
  t.is(examples.length, 8);
  const tsc = fileURLToPath(new URL('node_modules/.bin/tsc', top));
  const { stdout, status } = spawnSync(tsc, ['-p', fileURLToPath(folder)], { encoding: 'utf8' });
  t.is(status, 0, stdout);
});

test('the first example of the README prints what its comments say', (t) => {
  const script = fileURLToPath(new URL('example-0.ts', folder));
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import=@oxc-node/core/register', script], {
    cwd: fileURLToPath(top),
    encoding: 'utf8',
  });
  t.is(status, 0, stderr);
  const promised = [...(examples[0] ?? '').matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, text]) => text);
  t.is(promised.length, 3);
  t.deepEqual(stdout.trim().split('\n'), promised);
});
