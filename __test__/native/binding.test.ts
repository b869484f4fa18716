/**
 * The loader of the native core compared with the declarations. The loader is written by hand, the declarations are
 * generated.
 */
import * as binding from '#native';
import test from 'ava';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { platforms } from '../package/support/scripts.ts';

const folder = new URL('../../ts/native/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');

test('the loader exports exactly the declared names', (t) => {
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

test('the loader supports the platforms of the packages', (t) => {
  const listed = /PLATFORMS = \[(.*)\]/.exec(read('binding.js'))?.[1]?.match(/[\w-]+/g) ?? [];
  t.deepEqual(
    [...listed].sort(),
    platforms(new URL('../../', import.meta.url).pathname)
      .map(({ name }) => name)
      .sort(),
  );
});

test('the loader reports a core that cannot be loaded, not the places without one', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'peerdma-loader-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const [loader, program] = [join(root, 'loader'), join(root, 'program')];
  for (const made of [loader, program]) mkdirSync(made);
  copyFileSync(new URL('binding.js', folder), join(loader, 'binding.mjs'));
  writeFileSync(
    join(program, 'main.mjs'),
    `import { hostPageSize } from '../loader/binding.mjs';
try { hostPageSize(); } catch (error) { console.log(error.name, error.code, error.message, error.cause.code); }`,
  );
  for (const { name } of platforms(new URL('../../', import.meta.url).pathname)) {
    writeFileSync(join(program, `peerdma.${name}.node`), 'not a shared object');
  }
  const said = execFileSync(process.execPath, [join(program, 'main.mjs')], { encoding: 'utf8' });
  t.regex(said, /^NativeError ERR_NATIVE_CORE_MISSING .* cannot be loaded: .*ERR_DLOPEN_FAILED$/m);
});
