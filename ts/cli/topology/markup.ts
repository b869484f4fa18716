/**
 * Text in SVG and HTML: all that comes from /sys goes through here, for it may be anything.
 */

import { printable, printableJson } from '../../printable.ts';

/** Text that markup takes as text, in elements and in quoted attributes. */
export function escape(text: string): string {
  const names: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  // Control characters and halves of surrogate pairs are allowed in neither XML nor HTML.
  return printable(text.replaceAll(/\p{Cs}/gu, '?')).replaceAll(/[&<>"']/g, (character) => names[character] ?? '');
}

/** Data in a script element, where `</script>` would end it. */
export function scriptData(value: unknown): string {
  return printableJson(JSON.stringify(value)).replaceAll('<', '\\u003c');
}
