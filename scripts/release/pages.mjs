// The pages of the main package: the README and the guides, with links that lead somewhere outside a checkout.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';

/**
 * Reads the pages as the package has them.
 *
 * @param {string} top the checkout
 * @param {{ version: string, repository?: string | { url: string } }} manifest without a repository, a link to a file that is
 *   not packed becomes its text
 * @returns {Map<string, string>} texts by path
 */
export function packedPages(top, manifest) {
  const guides = readdirSync(join(top, 'docs')).filter((name) => name.endsWith('.md'));
  const paths = ['README.md', ...guides.map((name) => `docs/${name}`)];
  const read = (path) => readFileSync(join(top, path), 'utf8');
  return new Map(paths.map((path) => [path, withPackedLinks(read(path), path, { top, paths, manifest })]));
}

/** Links of Markdown outside fenced blocks; those with a scheme, or to a heading of the page, stay as they are. */
function withPackedLinks(text, page, { top, paths, manifest }) {
  return text
    .split(/^(```[\s\S]*?^```)$/m)
    .map((part, index) => (index % 2 === 1 ? part : part.replace(/\[([^\]]+)\]\(([^)\s]+)\)/g, packed)))
    .join('');

  function packed(link, label, target) {
    if (/^([a-z]+:|#)/i.test(target)) return link;
    const [file = '', hash] = target.split('#');
    const path = posix.join(posix.dirname(page), file);
    if (paths.includes(path)) return link;
    if (!existsSync(join(top, path))) throw new Error(`${page}: the link to ${target} leads nowhere`);
    const source = sourceUrl(manifest);
    return source === undefined ? label : `[${label}](${source}/${path}${hash === undefined ? '' : `#${hash}`})`;
  }
}

/** Where a browser finds the files of this version. */
function sourceUrl({ version, repository }) {
  const url = typeof repository === 'object' ? repository.url : repository;
  return url && `${url.replace(/^git\+/, '').replace(/\.git$/, '')}/blob/v${version}`;
}
