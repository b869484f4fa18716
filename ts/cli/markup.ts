/**
 * Escapes text for SVG and HTML. All text from /sys and from files is escaped: it may have any character.
 */
import { printable, printableJson } from '../printable.ts';

/** Escapes text for elements and quoted attributes. */
export function escape(text: string): string {
  const names: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  // Neither XML nor HTML allows control characters and unpaired surrogates.
  return printable(text.replaceAll(/\p{Cs}/gu, '?')).replaceAll(/[&<>"']/g, (character) => names[character] ?? '');
}

/** Returns JSON that can neither end its script element nor begin a comment. */
export function scriptData(value: unknown): string {
  return printableJson(JSON.stringify(value)).replaceAll('<', '\\u003c');
}
