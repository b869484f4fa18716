/**
 * Links between the pages lead to existing files and headings. The table of error codes has exactly those of the
 * package.
 */
import test from 'ava';
import { existsSync, readFileSync } from 'node:fs';
import { type Page, readPages, top } from './support/pages.ts';

const pages = readPages();
const errorCodes = new Set(
  [...readFileSync(new URL('ts/errors.ts', top), 'utf8').matchAll(/'(ERR_\w+)'/g)].map(([, code = '']) => code),
);

test('every relative link leads to a file and heading', (t) => {
  const broken: string[] = [];
  let seen = 0;
  for (const page of pages) {
    for (const target of linksOf(page)) {
      const { pathname, hash, origin } = new URL(target, new URL(page.path, 'http://here/'));
      if (origin !== 'http://here') continue;
      seen++;
      const path = decodeURIComponent(pathname.slice(1));
      const other = pages.find((one) => one.path === path);
      const found = hash === '' ? existsSync(new URL(path, top)) : other && anchorsOf(other).includes(hash.slice(1));
      if (found !== true) broken.push(`${page.path}: ${target}`);
    }
  }
  t.deepEqual(broken, []);
  t.true(seen > 30);
});

test('each guide is linked from the README, directly or not', (t) => {
  const reached = new Set<string>();
  const visit = (path: string): void => {
    const page = pages.find((one) => one.path === path);
    if (page === undefined || reached.has(path)) return;
    reached.add(path);
    for (const target of linksOf(page)) visit(new URL(target, new URL(path, 'http://here/')).pathname.slice(1));
  };
  visit('README.md');
  const guides = pages.map(({ path }) => path).filter((path) => path.startsWith('docs/'));
  t.deepEqual(
    guides.filter((path) => !reached.has(path)),
    [],
  );
});

test('docs/errors.md has one row for each error code, in alphabetical order', (t) => {
  const rows = proseOf('docs/errors.md').filter((line) => line.startsWith('|'));
  const codes = rows.slice(2).map((row) => /^\| `(ERR_\w+)` +\| [^|]*\w[^|]*\| [^|]*\w[^|]*\|$/.exec(row)?.[1] ?? row);
  t.deepEqual(codes, [...errorCodes].sort());
});

test('guides name no unknown error code', (t) => {
  for (const { path, prose, blocks } of pages) {
    const text = [...prose, ...blocks.map(({ code }) => code)].join('\n');
    // `ERR_…` followed by a star or an ellipsis is not a code.
    for (const [code] of text.matchAll(/\bERR_\w+/g)) t.true(errorCodes.has(code), `${path}: ${code}`);
  }
});

function proseOf(path: string): readonly string[] {
  const page = pages.find((one) => one.path === path);
  if (page === undefined) throw new Error(`${path} is missing`);
  return page.prose;
}

/** Targets of links and pictures in the text. */
function linksOf({ prose }: Page): string[] {
  const text = prose.join('\n').replace(/(?<!`)`[^`\n]+`(?!`)(?!\]\()/g, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
}

/** The anchor of a heading on GitHub. */
function anchorsOf({ prose }: Page): string[] {
  const headings = prose.flatMap((line) => /^#+ +(.*)$/.exec(line)?.[1] ?? []);
  return headings.map((text) =>
    text
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
}
