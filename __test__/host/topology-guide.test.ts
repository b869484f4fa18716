/**
 * Checks docs/topology.md against the reason codes of the matrix.
 */
import { readFileSync } from 'node:fs';
import test from 'ava';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

/** Codes between two comments of the type. */
function codesBetween(first: string, last: string): string[] {
  const model = read('ts/host/peer-to-peer/model.ts');
  const part = model.slice(model.indexOf(first), model.indexOf(last));
  return [...part.matchAll(/\| '([a-z-]+)'/g)].map(([, code = '']) => code);
}

/** Codes in the first column of the table below a heading. */
function codesListed(heading: string): string[] {
  const guide = read('docs/topology.md');
  const [, table = ''] = guide.slice(guide.indexOf(heading)).split(/\n\n(?=\|)/, 2);
  return [...table.split('\n\n', 1)[0]!.matchAll(/^\| `([a-z-]+)`/gm)].map(([, code = '']) => code);
}

test('the guide of the matrix lists every reason of a verdict', (t) => {
  const codes = codesBetween('// Reasons of the verdict', '// Prerequisites');
  t.true(codes.includes('iommu-first'));
  t.deepEqual(codesListed('**Reasons**').toSorted(), codes.toSorted());
});

test('the guide of the matrix lists every prerequisite', (t) => {
  const codes = codesBetween('// Prerequisites', '// Notes');
  t.true(codes.includes('not-responding'));
  t.deepEqual(codesListed('**Prerequisites**').toSorted(), codes.toSorted());
});

test('the guide of the matrix lists every note', (t) => {
  const codes = codesBetween('// Notes', '/** One reason');
  t.true(codes.includes('iommu-width-unknown'));
  for (const code of codes) t.true(codesListed('**Notes**').includes(code), code);
});
