/** The linter of English rejects banned phrases, and prints the reason. */
import test from 'ava';
import { readFileSync } from 'node:fs';
import { PHRASES, findingsOf } from './scripts.ts';

// In a file of text, which lint does not check.
const BANNED = readFileSync(new URL('banned.txt', import.meta.url), 'utf8')
  .trim()
  .split('\n');
// Lint does not check strings of less than four words.
const IS_NO = 'is no';
const PHRASE = `${IS_NO} endpoint`;
const message = (line: number): string => `${line}: "${IS_NO}": write "is not a"`;

test('each phrase is found once, in a sentence of its own', (t) => {
  for (const sentence of BANNED) t.is(findingsOf('docs/a.md', sentence).length, 1, sentence);
  const unseen = PHRASES.filter(({ pattern }) => !BANNED.some((sentence) => pattern.test(sentence)));
  t.deepEqual(unseen, []);
});

test('prints the phrase, the reason and the line', (t) => {
  const found = [message(3)];
  t.deepEqual(findingsOf('a.ts', '/**', ' * Reads the kind. A bridge', ` * ${PHRASE}.`, ' */'), found);
  t.deepEqual(findingsOf('a.rs', '', '', `// ${PHRASE}`), found);
  t.deepEqual(findingsOf('docs/a.md', '', '', `A bridge ${PHRASE}.`), found);
});

test('finds a phrase across the end of a line', (t) => {
  t.deepEqual(findingsOf('a.rs', '// A bridge is', '// no endpoint.'), [message(1)]);
});

test('finds phrases in error messages and test titles', (t) => {
  const found = [message(1)];
  t.deepEqual(findingsOf('a.ts', `test("a bridge ${PHRASE}", () => {});`), found);
  t.deepEqual(findingsOf('a.ts', `fail(\`\${name}: a bridge ${PHRASE} of \${kind}\`);`), found);
  t.deepEqual(findingsOf('a.rs', `let a = "a bridge ${PHRASE}";`), found);
});

test('accepts what only looks like a phrase', (t) => {
  for (const sentence of [
    'There is no endpoint.',
    'The range is no longer mapped.',
    'What happens when a device sleeps?',
    'Where the tree begins, in order of name.',
    'Call `tells` of [a page](docs/says.md).',
  ]) {
    t.deepEqual(findingsOf('docs/a.md', sentence), [], sentence);
  }
  t.deepEqual(findingsOf('docs/a.md', '# What a guest sees', '', '```text', 'it says', '```', '| says |'), []);
});

test('reads no comment in strings, templates, regular expressions and characters', (t) => {
  const code = ["a('// says');", 'b(`//says ${c("//says")} //says`);', 'd(/[//] says/);', "e('/* says */');"];
  for (const line of code) t.deepEqual(findingsOf('a.ts', line), [], line);
  const rust = ['"// says";', 'r#"" // says"#;', "['\"', '\"'];", "fn a<'a>() {}"];
  for (const line of rust) t.deepEqual(findingsOf('a.rs', line), [], line);
});

test('reads the comment after a literal', (t) => {
  const code = ['`${a}"`;', '/"/;', '"\'";'];
  for (const line of code) t.is(findingsOf('a.ts', `${line} // says`).length, 1, line);
  const rust = ["'\"';", "b'\\'';", 'r#"""#;', '"\\"";', "&'a b;"];
  for (const line of rust) t.is(findingsOf('a.rs', `${line} // says`).length, 1, line);
});
