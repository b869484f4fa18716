/**
 * The pages for readers: those at the top, the guides, and the pages of testbed, fuzz and packages. Generated pages are
 * in other folders below docs/ and do not count.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The top of the checkout, also for what is compiled below target/js. */
export const top = new URL(import.meta.url.includes('/target/js/') ? '../../../../../' : '../../../', import.meta.url);

/** A fenced block. */
export interface Block {
  /** Path of the page, below the top. */
  readonly page: string;
  /** Of the fence, from 1. */
  readonly line: number;
  readonly language: string;
  /** The text of the fence after the language, which renderers hide. */
  readonly mark: string;
  readonly code: string;
}

export interface Page {
  /** Below the top. */
  readonly path: string;
  readonly blocks: readonly Block[];
  /** The text without its blocks, line by line. */
  readonly prose: readonly string[];
}

export function readPages(): Page[] {
  const platforms = names('npm').map((name) => `npm/${name}`);
  const beside = ['docs', 'testbed', 'fuzz', ...platforms].flatMap((folder) => {
    const pages = names(folder).filter((name) => name.endsWith('.md'));
    return pages.map((name) => `${folder}/${name}`);
  });
  const atTop = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md'];
  return [...atTop, ...beside].map((path) => parsePage(path, readFileSync(new URL(path, top), 'utf8')));
}

/** Splits a page as CommonMark has it, where fences are not in quotations. */
export function parsePage(path: string, text: string): Page {
  const blocks: Block[] = [];
  const prose: string[] = [];
  let open: { fence: string; indent: number; block: Omit<Block, 'code'>; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const [, indent = '', fence = '', info = ''] = /^( *)(`{3,}|~{3,})(.*)$/.exec(line) ?? [];
    if (open === undefined) {
      if (fence === '') {
        prose.push(line);
        continue;
      }
      const [, language = '', mark = ''] = /^\s*(\S*)\s*(.*?)\s*$/.exec(info) ?? [];
      open = { fence, indent: indent.length, block: { page: path, line: index + 1, language, mark }, lines: [] };
    } else if (fence.startsWith(open.fence) && info.trim() === '') {
      blocks.push({ ...open.block, code: open.lines.map((each) => `${each}\n`).join('') });
      open = undefined;
    } else {
      open.lines.push(line.slice(Math.min(open.indent, line.search(/\S|$/))));
    }
  }
  if (open !== undefined) throw new Error(`${path}:${open.block.line}: the block has no end`);
  return { path, blocks, prose };
}

function names(folder: string): string[] {
  return readdirSync(fileURLToPath(new URL(folder, top))).sort();
}
