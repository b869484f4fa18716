/**
 * The pages of the package: their links lead to files of the package.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { parsePage } from '../guides/support/pages.ts';
import { mainPackage, packedPages } from './support/scripts.ts';

const out = mkdtempSync(join(tmpdir(), 'peerdma-pages-'));
const tarball = await mainPackage(out);
test.after.always(() => rmSync(out, { recursive: true }));
const tar = (...args: string[]): string => spawnSync('tar', args, { encoding: 'utf8' }).stdout;

test('every relative link of a packed page leads to a packed file', (t) => {
  const files = tar('-tzf', tarball).trim().split('\n');
  const pages = files.filter((file) => file.endsWith('.md'));
  t.true(pages.includes('package/README.md') && pages.includes('package/docs/vmm.md'));
  const links = pages.flatMap((page) => {
    const { prose } = parsePage(page, tar('-xzOf', tarball, page));
    const targets = [...prose.join('\n').matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
    const relative = targets.filter((target) => !/^([a-z]+:|#)/.test(target));
    return relative.map((target) => ({ page, file: posix.join(posix.dirname(page), target.replace(/#.*/, '')) }));
  });
  t.true(links.length > 15);
  t.deepEqual(
    links.filter(({ file }) => !files.includes(file)),
    [],
  );
});

/** A checkout with a README of two links, one to a guide and one to a file that is not packed. */
function checkout(t: ExecutionContext, readme: string): string {
  const top = mkdtempSync(join(tmpdir(), 'peerdma-checkout-'));
  t.teardown(() => rmSync(top, { recursive: true }));
  mkdirSync(join(top, 'docs'));
  writeFileSync(join(top, 'docs/guide.md'), '# Guide\n');
  mkdirSync(join(top, 'examples'));
  writeFileSync(join(top, 'examples/one.ts'), '');
  cpSync(join(top, 'docs/guide.md'), join(top, 'examples/guide.md'));
  writeFileSync(join(top, 'README.md'), readme);
  return top;
}

const README =
  '[Guide](docs/guide.md#guide), [one](examples/one.ts#L1), [web](https://example.com/)\n\n```md\n[a](b)\n```\n';

test('a link to a file that is not packed becomes its text while package.json has no repository', (t) => {
  const pages = packedPages(checkout(t, README), { version: '1.2.3' });
  t.is(pages.get('README.md'), README.replace('[one](examples/one.ts#L1)', 'one'));
});

test('a link to a file that is not packed leads to the repository once package.json names it', (t) => {
  const repository = { url: 'git+https://example.com/owner/name.git' };
  const pages = packedPages(checkout(t, README), { version: '1.2.3', repository });
  const absolute = 'https://example.com/owner/name/blob/v1.2.3/examples/one.ts#L1';
  t.is(pages.get('README.md'), README.replace('examples/one.ts#L1', absolute));
});

test('a package is not made of a page with a link to a file that does not exist', (t) => {
  const top = checkout(t, '[gone](examples/gone.ts)\n');
  t.throws(() => packedPages(top, { version: '1.2.3' }), {
    message: 'README.md: the link to examples/gone.ts leads nowhere',
  });
});
