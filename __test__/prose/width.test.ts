/** The linter of English rejects wide lines of comments and guides. */
import test from 'ava';
import { findingsOf } from './scripts.ts';

const words = (columns: number): string => 'mapping '.repeat(columns).slice(0, columns - 1) + '.';

test('rejects a comment line of more than 120 columns', (t) => {
  t.deepEqual(findingsOf('a.ts', `// ${words(117)}`, `// ${words(118)}`), ['2: the line has 121 columns, at most 120']);
  t.deepEqual(findingsOf('a.rs', `let a = 1; // ${words(107)}`), ['1: the line has 121 columns, at most 120']);
  t.deepEqual(findingsOf('a.ts', '/*', ` * ${words(118)}`, ' */'), ['2: the line has 121 columns, at most 120']);
});

test('leaves the width of code to the formatter', (t) => {
  t.deepEqual(findingsOf('a.ts', `const a = '${words(130)}';`), []);
});

test('leaves out the addresses of links', (t) => {
  const address = `https://example.org/${'x'.repeat(100)}`;
  t.deepEqual(findingsOf('a.ts', `// ${words(100)} ${address}`), []);
  t.deepEqual(findingsOf('docs/a.md', `${words(100)} [text](${address})`), []);
});

test('rejects a wide line of a guide, except in tables and code blocks', (t) => {
  const wide = words(121);
  t.deepEqual(findingsOf('docs/a.md', wide), ['1: the line has 121 columns, at most 120']);
  t.deepEqual(findingsOf('docs/a.md', `| ${wide} |`, '', '```text', wide, '```'), []);
});
