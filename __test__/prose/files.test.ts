/** The files that the linter of English reads. */
import test from 'ava';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { proseFiles } from './scripts.ts';

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
