/**
 * Suggestions for mistyped words.
 */
import test from 'ava';
import { nearest } from '../../ts/cli/nearest.ts';

const NAMES = ['bind', 'doctor', 'explain', 'topology', 'unbind', 'view'];

test('suggests the name for a word with a wrong, missing, added or swapped letter', (t) => {
  const typed: readonly (readonly [string, string])[] = [
    ['topologie', 'topology'],
    ['topolgy', 'topology'],
    ['topollogy', 'topology'],
    ['tpoology', 'topology'],
    ['docter', 'doctor'],
    ['vew', 'view'],
    ['veiw', 'view'],
    ['DOCTOR', 'doctor'],
    ['--doctor', 'doctor'],
    ['topo', 'topology'],
    ['unbnid', 'unbind'],
    ['bnd', 'bind'],
    ['top', 'topology'],
    ['--docter', 'doctor'],
  ];
  for (const [text, name] of typed) t.is(nearest(text, NAMES), name, text);
});

test('suggests no name for a word that resembles none', (t) => {
  const typed = ['', 'x', 'lspci', 'frobnicate', 'be', 'to', 'vixx', 'topabcgy', 'a'.repeat(10_000)];
  for (const text of typed) {
    t.is(nearest(text, NAMES), undefined, text.slice(0, 20));
  }
});

test('suggests the name with the fewest edits, at any index of the list', (t) => {
  t.is(nearest('abcdx', ['abcyz', 'abcde', 'abyyx']), 'abcde');
});
