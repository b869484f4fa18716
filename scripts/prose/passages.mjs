// Splits Markdown, which doc comments are written in, into passages of prose.

/**
 * @typedef {object} Passage Prose that belongs together: a paragraph, an item of a list, or a tag of a doc comment.
 * @property {string} text with a space for each line break
 * @property {{ line: number, offset: number }[]} rows the lines, from 1, and the offset in `text` of each
 */

const FENCE = /^(?:```+|~~~+)/;
/** Headings, rows of tables, and HTML comments. */
const NOT_PROSE = /^(?:#+ |\||<!--)/;
const ITEM = /^(?:[-*] |\d+\. |> )/;

/**
 * Reads the passages, without headings, tables and code blocks.
 *
 * @param {string[]} rows of Markdown
 * @param {number} firstLine the line of the first row
 * @returns {Passage[]}
 */
export function readPassages(rows, firstLine) {
  const passages = [];
  let open;
  let fence;
  for (const [index, row] of rows.entries()) {
    const line = firstLine + index;
    const text = row.trim();
    const [marker] = FENCE.exec(text) ?? [];
    if (fence !== undefined || marker !== undefined) {
      if (fence === undefined) fence = marker;
      else if (marker === fence) fence = undefined;
      open = undefined;
    } else if (text === '' || NOT_PROSE.test(text)) {
      open = undefined;
    } else if (open === undefined || ITEM.test(text) || /^@\w/.test(text)) {
      open = { text: text.replace(ITEM, ''), rows: [{ line, offset: 0 }] };
      passages.push(open);
    } else {
      open.rows.push({ line, offset: open.text.length + 1 });
      open.text += ` ${text}`;
    }
  }
  return passages;
}

/**
 * Returns the line of an offset in the text of a passage.
 *
 * @param {Passage} passage
 * @param {number} offset
 */
export function lineAt({ rows }, offset) {
  return rows.findLast((row) => row.offset <= offset).line;
}
