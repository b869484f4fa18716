/**
 * Formats lines of text to a given width.
 */
import type { styleText } from 'node:util';

/** Styles a text. Returns it unchanged if the output is not a terminal. */
export type Paint = (style: Parameters<typeof styleText>[0], text: string) => string;

/** Cuts a text with `…`, or pads it, to exactly `width` characters. */
export function fit(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, Math.max(width - 1, 0))}…` : text.padEnd(width);
}

/** Wraps a text at spaces into lines of at most `width` characters. Does not break longer words. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines;
}

/** Wraps the text of a list item: a mark, then the text with a hanging indent. */
export function item(mark: string, text: string, width: number): string[] {
  return wrap(text, width - mark.length).map((line, index) => (index === 0 ? mark : ' '.repeat(mark.length)) + line);
}
