// Splits prose into sentences.

const segmenter = new Intl.Segmenter('en', { granularity: 'sentence' });
/** An abbreviation at the end of a segment, after which the sentence goes on. */
const ABBREVIATION = /\b(?:e\.g|i\.e|cf|vs|no|sec|ch)\.\s*$/i;
const CODE = /(`+).*?\1|\{@link(?:code|plain)?\s[^}]*\}|(?<=\])\([^)]*\)|\bhttps?:\/\/\S+/g;

/**
 * Replaces code spans and link addresses, which are not English, by words of the same length.
 *
 * @param {string} text
 */
export function withoutCode(text) {
  return text.replace(CODE, (code) => 'X'.repeat(code.length));
}

/**
 * @param {string} text of one passage
 * @returns {{ text: string, offset: number }[]} `offset` is where the sentence begins in the text
 */
export function sentences(text) {
  const found = [];
  for (const { segment, index } of segmenter.segment(text)) {
    const last = found.at(-1);
    if (last !== undefined && ABBREVIATION.test(last.text)) last.text += segment;
    else found.push({ text: segment, offset: index });
  }
  return found.map(trimmed).filter((sentence) => sentence.text !== '');
}

function trimmed({ text, offset }) {
  return { text: text.trim(), offset: offset + text.length - text.trimStart().length };
}
