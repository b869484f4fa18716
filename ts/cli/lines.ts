/**
 * Lines of text of a known width, and their colours.
 */
import type { styleText } from 'node:util';

/** Styles a piece of text; leaves it as it is where the output is not a terminal. */
export type Paint = (style: Parameters<typeof styleText>[0], text: string) => string;

/** Exactly `width` characters: cut with `…`, or padded. */
export function fit(text: string, width: number): string {
  return text.length > width ? `${text.slice(0, Math.max(width - 1, 0))}…` : text.padEnd(width);
}

/** Breaks between words into lines of at most `width` characters; words longer than that stay whole. */
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

/** Wrapped text behind a mark, the lines that follow indented below the first. */
export function item(mark: string, text: string, width: number): string[] {
  return wrap(text, width - mark.length).map((line, index) => (index === 0 ? mark : ' '.repeat(mark.length)) + line);
}
