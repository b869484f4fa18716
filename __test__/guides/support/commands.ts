/**
 * The command lines of the pages: in blocks of `sh`, and between backticks in the text.
 */
import type { Page } from './pages.ts';

export interface CommandLine {
  /** Page and, in a block, the line. */
  readonly where: string;
  /** Without `npx`, `sudo` and variables that are set for it. */
  readonly words: readonly string[];
}

export function commandLines(pages: readonly Page[]): CommandLine[] {
  return pages.flatMap(({ path, blocks, prose }) => {
    const shell = blocks.filter(({ language }) => language === 'sh');
    const shown = shell.flatMap(({ code, line }) => split(code).map((words) => ({ where: `${path}:${line}`, words })));
    const named = codeSpans(prose).flatMap((span) => split(span).map((words) => ({ where: path, words })));
    return [...shown, ...named];
  });
}

/** Text between backticks, which may continue in the next line. */
export function codeSpans(prose: readonly string[]): string[] {
  return [...prose.join('\n').matchAll(/(?<!`)`([^`]+)`(?!`)/g)].map(([, code = '']) => code.replace(/\s+/g, ' '));
}

/** Commands of a script, as words. Quotes are removed, and nothing is substituted: this suffices for the pages. */
function split(script: string): string[][] {
  const lines = script.replaceAll('\\\n', ' ').split('\n');
  return lines
    .flatMap((line) => line.replace(/(^|\s)#.*$/, '').split(/&&|\|\||[;|]/))
    .map((command) => (command.match(/"[^"]*"|'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^(["'])(.*)\1$/, '$2')))
    .map((words) =>
      words.slice(
        Math.max(
          0,
          words.findIndex((word) => !/^([A-Z_]+=.*|npx|sudo)$/.test(word)),
        ),
      ),
    )
    .filter(({ length }) => length > 0);
}
