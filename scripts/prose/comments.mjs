// Reads the comments of a source file as prose.
import { readPassages } from './passages.mjs';

/** @typedef {import('./passages.mjs').Passage & { isSummary: boolean }} CommentPassage */

/**
 * @param {string} text a source file
 * @param {import('./literals.mjs').Literals} literals of the file
 * @returns {{ passages: CommentPassage[], lines: Set<number> }} `isSummary` marks the description of a doc comment;
 *   `lines` are those with a comment, from 1
 */
export function readComments(text, literals) {
  const comments = joinLineComments(findComments(text, literals));
  const lines = new Set(comments.flatMap(({ line, rows }) => rows.map((_, index) => line + index)));
  return { passages: comments.flatMap(passagesOf), lines };
}

/** Finds each comment, as the rows that it is written in. */
function findComments(text, literals) {
  const comments = [];
  const opening = /\/\/.*|\/\*[^]*?\*\/|["'`/}r]|\b[bc]r?/g;
  for (let match; (match = opening.exec(text)) !== null;) {
    const literalEnd = literals.get(match.index);
    if (literalEnd !== undefined) opening.lastIndex = literalEnd;
    else if (/^\/[/*]/.test(match[0])) comments.push(commentAt(text, match));
  }
  return comments;
}

function commentAt(text, { 0: source, index }) {
  const before = text.slice(0, index);
  const line = before.split('\n').length;
  const column = index - (before.lastIndexOf('\n') + 1);
  const isAlone = before.slice(before.length - column).trim() === '';
  const marker = /^(?:\/\*\*(?!\/)|\/\*|\/\/\/(?!\/)|\/\/!|\/\/)/.exec(source)[0];
  const rows = source
    .slice(marker.length)
    .replace(/\*\/$/, '')
    .split('\n')
    .map((row, at) => (at === 0 ? row : row.replace(/^\s*\* ?/, '')));
  return { line, column, isAlone, marker, rows };
}

/** Joins `//` comments on consecutive lines, which are one text. */
function joinLineComments(comments) {
  const joined = [];
  for (const comment of comments) {
    const last = joined.at(-1);
    const follows =
      last !== undefined &&
      comment.isAlone &&
      comment.marker.startsWith('//') &&
      last.marker === comment.marker &&
      last.column === comment.column &&
      last.line + last.rows.length === comment.line;
    if (follows) last.rows.push(...comment.rows);
    else joined.push({ ...comment, rows: [...comment.rows] });
  }
  return joined;
}

const DIRECTIVE = /^(?:oxlint|eslint|prettier)-|^@ts-/;
/** A tag with its type and name, which are not English. */
const TAG = /^@(?:(?:param|property|typedef)\s+(?:\{[^}]*\}\s+)?\S+(?:\s+-)?|\w+(?:\s+\{[^}]*\})?)/;

function passagesOf({ line, marker, rows }) {
  const isDoc = ['/**', '///', '//!'].includes(marker);
  return readPassages(rows, line)
    .filter(({ text }) => !DIRECTIVE.test(text))
    .map((passage, index) => ({
      ...passage,
      text: passage.text.replace(TAG, (tag) => ' '.repeat(tag.length)),
      isSummary: isDoc && index === 0 && !passage.text.startsWith('@'),
    }));
}
