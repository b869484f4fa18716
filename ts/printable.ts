/**
 * Text that a terminal shows and does not obey.
 */

/** Control characters, line and paragraph separators, and what turns the direction of text (Unicode, UAX #9). */
const OBEYED = /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
/** As above, without the line end that JSON is laid out with. */
const OBEYED_IN_JSON = /(?!\n)[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/**
 * One line of text with `?` for each character that a terminal would obey, line ends among them. Names of mounts,
 * interfaces, drivers, regions and files may have any.
 *
 * @internal
 */
export function printable(text: string): string {
  return text.replaceAll(OBEYED, '?');
}

/** JSON of the same value with these characters escaped; `JSON.stringify` escapes only some of them. @internal */
export function printableJson(json: string): string {
  return json.replaceAll(OBEYED_IN_JSON, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
