// Checks the English of one file.
import { extname } from 'node:path';
import { readComments } from './comments.mjs';
import { findLiterals } from './literals.mjs';
import { readMessages } from './messages.mjs';
import { lineAt, readPassages } from './passages.mjs';
import { PHRASES } from './phrases.mjs';
import { sentences, withoutCode } from './sentences.mjs';

const MAX_COLUMNS = 120;
const MAX_SUMMARY_COLUMNS = 100;
const MAX_WORDS = 40;

/** @typedef {{ line: number, message: string }} Finding */

/**
 * @param {string} path whose extension names the language
 * @param {string} text the file
 * @returns {Finding[]} in the order of lines
 */
export function checkProse(path, text) {
  const found = extname(path) === '.md' ? checkMarkdown(text) : checkSource(text, findLiterals(path, text));
  return found.sort((a, b) => a.line - b.line);
}

function checkSource(text, literals) {
  const { passages, lines } = readComments(text, literals);
  const messages = readMessages(text, literals);
  return [
    ...checkWidths(text, lines),
    ...passages.flatMap((passage) => [...checkSummary(passage), ...checkSentences(passage)]),
    ...messages.flatMap((message) => checkSentences(message)),
  ];
}

function checkMarkdown(text) {
  const rows = text.split('\n');
  const lines = new Set();
  let isCode = false;
  for (const [index, row] of rows.entries()) {
    if (/^\s*(?:```|~~~)/.test(row)) isCode = !isCode;
    else if (!isCode && !row.trimStart().startsWith('|')) lines.add(index + 1);
  }
  return [...checkWidths(text, lines), ...readPassages(rows, 1).flatMap(checkSentences)];
}

/** Checks the width of some lines, without the addresses of links, which cannot be wrapped. */
function checkWidths(text, lines) {
  const rows = text.split('\n');
  return [...lines].flatMap((line) => {
    const columns = [...rows[line - 1].replace(/(?<=\])\([^)]*\)|\bhttps?:\/\/\S+/g, '')].length;
    return columns > MAX_COLUMNS ? [{ line, message: `the line has ${columns} columns, at most ${MAX_COLUMNS}` }] : [];
  });
}

function checkSummary(passage) {
  const [first] = passage.isSummary ? sentences(passage.text) : [];
  const columns = [...(first?.text ?? '')].length;
  if (columns <= MAX_SUMMARY_COLUMNS) return [];
  const message = `the first sentence of a doc comment has ${columns} columns, at most ${MAX_SUMMARY_COLUMNS}`;
  return [{ line: lineAt(passage, first.offset), message }];
}

function checkSentences(passage) {
  return sentences(withoutCode(passage.text)).flatMap(({ text, offset }) =>
    checkSentence(text).map(({ index, message }) => ({ line: lineAt(passage, offset + index), message })),
  );
}

function checkSentence(text) {
  const found = [];
  const words = text.split(/\s+/).filter((word) => /\w/.test(word)).length;
  if (words > MAX_WORDS) found.push({ index: 0, message: `the sentence has ${words} words, at most ${MAX_WORDS}` });
  for (const { pattern, reason } of PHRASES) {
    for (const { 0: phrase, index } of text.matchAll(new RegExp(pattern, `${pattern.flags}g`))) {
      found.push({ index, message: `"${shortened(phrase)}": ${reason}` });
    }
  }
  return found;
}

function shortened(phrase) {
  return phrase.length > 40 ? `${phrase.slice(0, 40)} …` : phrase;
}
