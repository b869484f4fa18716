/**
 * The name that a mistyped word is nearest to.
 */
import test from 'ava';
import { nearest } from '../../ts/cli/nearest.ts';

const NAMES = ['bind', 'doctor', 'explain', 'topology', 'unbind', 'view'];

test('finds the name for a letter that is wrong, missing, added or swapped', (t) => {
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

test('finds no name for a word that is like none of them', (t) => {
  const typed = ['', 'x', 'lspci', 'frobnicate', 'be', 'to', 'vixx', 'topabcgy', 'a'.repeat(10_000)];
  for (const text of typed) {
    t.is(nearest(text, NAMES), undefined, text.slice(0, 20));
  }
});

test('finds the name of the fewest edits, wherever it is in the list', (t) => {
  t.is(nearest('abcdx', ['abcyz', 'abcde', 'abyyx']), 'abcde');
});
