// Converts the README and the guides for the main package: their links work outside a checkout.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';

/**
 * Returns the pages of the package.
 *
 * @param {string} top path of the checkout
 * @param {{ version: string, repository?: string | { url: string } }} manifest without a repository, a link to a file
 *   that is not packed becomes its text
 * @returns {Map<string, string>} texts by path
 */
export function packedPages(top, manifest) {
  const guides = readdirSync(join(top, 'docs')).filter((name) => name.endsWith('.md'));
  const paths = ['README.md', ...guides.map((name) => `docs/${name}`)];
  const read = (path) => readFileSync(join(top, path), 'utf8');
  return new Map(paths.map((path) => [path, withPackedLinks(read(path), path, { top, paths, manifest })]));
}

/** Converts Markdown links outside fenced blocks. Keeps links with a scheme, and links to a heading of the page. */
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

/** Returns the URL of the files of this version. */
function sourceUrl({ version, repository }) {
  const url = typeof repository === 'object' ? repository.url : repository;
  return url && `${url.replace(/^git\+/, '').replace(/\.git$/, '')}/blob/v${version}`;
}
