/** The linter of English, which is JavaScript. */
export interface Finding {
  readonly line: number;
  readonly message: string;
}

const load = async <T>(name: string): Promise<T> =>
  (await import(new URL(`../../scripts/prose/${name}`, import.meta.url).href)) as T;

export const { checkProse } = await load<{ checkProse(path: string, text: string): Finding[] }>('check.mjs');

export const { PHRASES } = await load<{ PHRASES: readonly { pattern: RegExp; reason: string }[] }>('phrases.mjs');

export const { proseFiles } = await load<{ proseFiles(top: string): string[] }>('files.mjs');

/** Returns the findings of a file, as `line: message`. */
export function findingsOf(path: string, ...rows: string[]): string[] {
  return checkProse(path, rows.join('\n')).map(({ line, message }) => `${line}: ${message}`);
}
