// Checks of arguments that several commands have in common.
import test from 'ava';
import { linkSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isSameFile } from '../../ts/cli/arguments.ts';
import { scratchFolder } from '../support/scratch.ts';

test('two paths of a file that does not exist yet name the same file, also through links', (t) => {
  const folder = scratchFolder(t);
  symlinkSync(folder, join(folder, 'folder'));
  symlinkSync('new', join(folder, 'link'));
  symlinkSync('link', join(folder, 'chain'));
  symlinkSync('loop', join(folder, 'loop'));
  const file = join(folder, 'new');
  for (const other of ['new', 'folder/new', 'link', 'folder/chain'])
    t.true(isSameFile(file, join(folder, other)), other);
  for (const other of ['New', 'loop', 'new/new', 'none/new']) t.false(isSameFile(file, join(folder, other)), other);
  t.true(isSameFile(join(folder, 'loop'), join(folder, 'loop')));
});

test('two links of one file name the same file, two files with equal contents do not', (t) => {
  const folder = scratchFolder(t);
  const [file, hard, copy] = ['file', 'hard', 'copy'].map((name) => join(folder, name)) as [string, string, string];
  for (const name of [file, copy]) writeFileSync(name, 'text');
  linkSync(file, hard);
  t.true(isSameFile(file, hard));
  t.false(isSameFile(file, copy));
});

test('the standard stream is the same file only as itself', (t) => {
  t.true(isSameFile('-', '-'));
  t.false(isSameFile('-', './-'));
});
