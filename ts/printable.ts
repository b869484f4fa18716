/**
 * Text without characters that control a terminal.
 */

/** Control characters, line and paragraph separators, and directional formatting (Unicode, UAX #9). */
const CONTROLS = /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
/** As above, except the line end, which formatted JSON contains. */
const CONTROLS_IN_JSON = /(?!\n)[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/**
 * One line of text with `?` for each control character, line ends included. Names of mounts, interfaces, drivers,
 * regions and files may contain any.
 *
 * @internal
 */
export function printable(text: string): string {
  return text.replaceAll(CONTROLS, '?');
}

/** The same JSON with control characters escaped; `JSON.stringify` escapes only some of them. @internal */
export function printableJson(json: string): string {
  return json.replaceAll(CONTROLS_IN_JSON, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
