// Reads the strings of a source file that are English: error messages, test titles, texts of commands.

const MIN_WORDS = 4;

/**
 * @param {string} text a source file
 * @param {import('./literals.mjs').Literals} literals of the file
 * @returns {import('./passages.mjs').Passage[]} without strings of several lines, which are programs and pages
 */
export function readMessages(text, literals) {
  return [...literals].flatMap(([start, end]) => {
    const message = text.slice(start, end).replace(/^[`'"}]|(?:[`'"]|\$\{)$/g, '');
    const isProse = !/^\/|\n|^import /.test(message) && message.trim().split(/\s+/).length >= MIN_WORDS;
    return isProse ? [{ text: message, rows: [{ line: text.slice(0, start).split('\n').length, offset: 0 }] }] : [];
  });
}
