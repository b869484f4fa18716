/** The linter of English rejects long sentences, and long first sentences of doc comments. */
import test from 'ava';
import { findingsOf } from './scripts.ts';

const sentence = (words: number): string => `${Array.from({ length: words }, () => 'ab').join(' ')}.`;

/** Returns the findings about words alone. */
const longSentences = (path: string, ...rows: string[]): string[] =>
  findingsOf(path, ...rows).filter((finding) => finding.includes('words'));

test('rejects a sentence of more than 40 words', (t) => {
  const found = ['4: the sentence has 41 words, at most 40'];
  t.deepEqual(longSentences('docs/a.md', `${sentence(40)} Then ${sentence(39)}`), []);
  t.deepEqual(longSentences('docs/a.md', '# Title', '', sentence(3), `Then ${sentence(40)}`), found);
  t.deepEqual(longSentences('a.rs', '', '', `// ${sentence(20)}`, `// Then ${sentence(40)}`), found);
});

test('counts items of a list, paragraphs and tags each on its own', (t) => {
  const [half] = sentence(25).split('.');
  t.deepEqual(findingsOf('docs/a.md', `- ${half}`, `- ${half}`, '', half ?? '', '', half ?? ''), []);
  t.deepEqual(findingsOf('a.ts', '/**', ` * @param a ${half}`, ` * @returns ${half}`, ' */'), []);
});

test('goes on after an abbreviation', (t) => {
  const found = ['1: the sentence has 42 words, at most 40'];
  t.deepEqual(longSentences('docs/a.md', `A device, e.g. B ${sentence(38)}`), found);
});

test('rejects a first sentence of a doc comment of more than 100 columns', (t) => {
  const long = 'Maps a range. '.repeat(8).replaceAll('. ', ' ').trim();
  const message = `the first sentence of a doc comment has ${long.length + 1} columns, at most 100`;
  t.deepEqual(findingsOf('a.ts', 'const a = 1;', `/** ${long}. */`), [`2: ${message}`]);
  t.deepEqual(findingsOf('a.rs', `/// ${long.slice(0, 60)}`, `/// ${long.slice(61)}.`), [`1: ${message}`]);
  t.deepEqual(findingsOf('a.rs', `//! ${long}.`), [`1: ${message}`]);
});

test('accepts a long sentence of a comment that does not describe an item', (t) => {
  const long = 'Maps a range '.repeat(8).trim();
  t.deepEqual(
    findingsOf(
      'a.ts',
      `// ${long}.`,
      '',
      `/** Maps. ${long}. */`,
      `/** @returns ${long}. */`,
      '/** Maps.',
      ' *',
      ` * ${long}. */`,
    ),
    [],
  );
});
