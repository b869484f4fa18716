// Reads the declarations with typedoc, and collects its warnings.
import { readFileSync } from 'node:fs';
import { basename, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Application, Comment, CommentTag, Converter, LogLevel, Logger, ReflectionKind } from 'typedoc';
import { subjectOf, titles } from './subjects.mjs';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

const manifest = JSON.parse(readFileSync(path('../../package.json'), 'utf8'));

/** Declarations of the sub-paths by the names that programs import, such as `peerdma/host`. */
const subPaths = new Map(
  Object.entries(manifest.exports).flatMap(([subPath, { types }]) =>
    types === undefined ? [] : [[subPath.replace('.', manifest.name), path(`../../${types}`)]],
  ),
);

/** The published declarations: the output of `tsc` without internal names. */
export const PACKAGE = {
  entryPoints: [...subPaths.values()],
  tsconfig: path('tsconfig.json'),
  readme: path('../../README.md'),
  projectDocuments: [path('../../docs/*.md')],
};

/** Languages of fenced blocks that are highlighted. */
const HIGHLIGHTED = ['ts', 'sh', 'json', 'diff'];

const OPTIONS = {
  name: 'peerdma',
  includeVersion: true,
  disableSources: true,
  customCss: path('reference.css'),
  highlightLanguages: HIGHLIGHTED,
  markdownItLoader: plainFences,
  excludeExternals: true, // members of `Error` and other built-in classes
  categorizeByGroup: false,
  categoryOrder: ['Guides', ...titles],
  navigation: { includeCategories: true },
  visibilityFilters: {},
  // Guides may link to folders, which typedoc reports as missing files.
  validation: { notExported: true, invalidLink: true, invalidPath: false, rewrittenLink: true, notDocumented: false },
};

/** Collects warnings and errors instead of printing them. */
class Complaints extends Logger {
  lines = [];

  log(message, level) {
    if (level >= LogLevel.Warn) this.lines.push(message);
  }

  /** Prefixes a message with the file and line of its node or position. */
  addContext(message, level, at, file = at?.getSourceFile?.()) {
    if (file === undefined) return message;
    const position = typeof at === 'number' ? at : at.getStart(file, false);
    const { line } = file.getLineAndCharacterOfPosition(position);
    return `${relative('.', file.fileName)}:${line + 1}: ${message}`;
  }
}

/**
 * Reads the declarations.
 *
 * @param {object} input options of typedoc: entry points, `tsconfig` and documents
 * @returns {Promise<{ app: Application, project: import('typedoc').ProjectReflection, complaints: string[] }>}
 */
export async function readModel(input) {
  const app = await Application.bootstrap({ ...OPTIONS, ...input });
  const logger = new Complaints();
  app.logger = logger;
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => arrange(project, logger));
  const project = await app.convert();
  if (project === undefined) throw new Error(logger.lines.join('\n'));
  app.validate(project);
  return { app, project, complaints: logger.lines };
}

/** Assigns each exported name to its subject, and names each guide by its heading. */
function arrange(project, logger) {
  const modules = project.getChildrenByKind(ReflectionKind.Module);
  for (const module of modules) nameModule(module);
  for (const child of modules.length === 0
    ? (project.children ?? [])
    : modules.flatMap(({ children = [] }) => children)) {
    const file = project.getSymbolIdFromReflection(child)?.packagePath ?? '';
    const subject = subjectOf(file);
    if (subject !== undefined) categorize(child, subject);
    else logger.warn(`${child.name} has no subject: scripts/reference/subjects.mjs lacks ${file}`);
  }
  for (const guide of project.documents ?? []) {
    const heading = /^# (.*)$/m.exec(Comment.combineDisplayParts(guide.content));
    if (heading !== null) guide.name = heading[1];
    categorize(guide, 'Guides');
  }
}

/** Names a module as programs import it. */
function nameModule(module) {
  const found = [...subPaths].find(([, file]) => basename(file, '.d.ts') === module.name);
  if (found !== undefined) module.name = found[0];
}

function categorize(reflection, title) {
  reflection.comment ??= new Comment();
  reflection.comment.blockTags.push(new CommentTag('@category', [{ kind: 'text', text: title }]));
}

/** Marks fenced blocks of other languages as text. By default typedoc highlights them as TypeScript. */
function plainFences(markdown) {
  markdown.core.ruler.push('plain_fences', ({ tokens }) => {
    for (const token of tokens) {
      if (token.type !== 'fence') continue;
      const [language] = token.info.split(' ');
      token.info = HIGHLIGHTED.includes(language) ? language : 'text';
    }
  });
}
