/** The findings of the linter of English only go down. */
import test from 'ava';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { compareCounts, isAllowedUpdate, proseFiles } from './scripts.ts';

test('a file has exactly the findings of the list', (t) => {
  t.deepEqual(compareCounts({ a: 2 }, { a: 2 }), { worse: [], better: [] });
  t.deepEqual(compareCounts({ a: 2, b: 1 }, { a: 3, c: 1 }), { worse: ['a', 'c'], better: ['b'] });
});

test('an update moves findings between files, and adds none', (t) => {
  t.true(isAllowedUpdate({ old: 2, a: 1 }, { renamed: 2, a: 1 }));
  t.true(isAllowedUpdate({ old: 2 }, { a: 1 }));
  t.false(isAllowedUpdate({ a: 2 }, { a: 2, b: 1 }));
});

test('finds sources, guides and the pages at the top, without products', (t) => {
  const top = mkdtempSync(join(tmpdir(), 'peerdma-prose-'));
  t.teardown(() => rmSync(top, { recursive: true }));
  const files = ['README.md', 'docs/a.md', 'ts/b.ts', 'crates/core/c.rs', 'scripts/d.mjs'];
  for (const file of [
    ...files,
    'dist/b.js',
    'ts/node_modules/e.ts',
    'target/f.rs',
    '.cache/g.mjs',
    'npm/x/README.md',
    'ts/h.css',
  ]) {
    mkdirSync(dirname(join(top, file)), { recursive: true });
    writeFileSync(join(top, file), '');
  }
  t.deepEqual(proseFiles(top), files.toSorted());
});
