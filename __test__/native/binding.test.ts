/**
 * The loader of the native core, which is written by hand, beside the declarations, which are generated.
 */
import * as binding from '#native';
import test from 'ava';
import { readFileSync } from 'node:fs';
import { platforms } from '../package/support/scripts.ts';

const folder = new URL('../../ts/native/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');

test('the loader gives all that is declared, and it is all there', (t) => {
  const declared = [...read('binding.d.cts').matchAll(/^export declare (?:class|function|const) (\w+)/gm)].map(
    ([, name = '']) => name,
  );
  t.true(declared.length > 10);
  const given = Object.keys(binding).filter((name) => !['default', 'module.exports'].includes(name));
  t.deepEqual(given.sort(), declared.sort());
  for (const [name, value] of Object.entries(binding)) {
    if (given.includes(name)) t.is(typeof value, 'function', name);
  }
});

test('the loader knows the platforms that there are packages for', (t) => {
  const listed = /PLATFORMS = \[(.*)\]/.exec(read('binding.js'))?.[1]?.match(/[\w-]+/g) ?? [];
  t.deepEqual(
    [...listed].sort(),
    platforms(new URL('../../', import.meta.url).pathname)
      .map(({ name }) => name)
      .sort(),
  );
});
