/**
 * Text that a terminal shows and does not obey.
 */

/** Names of mounts, interfaces, drivers and files may have anything in them: control characters are shown as `?`. @internal */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}
