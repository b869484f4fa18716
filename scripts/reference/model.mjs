// Declarations as typedoc reads them, and what it finds wrong with them.
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Application, Comment, CommentTag, Converter, LogLevel, Logger, ReflectionKind } from 'typedoc';
import { subjectOf, titles } from './subjects.mjs';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What is published: the declarations that `tsc` makes, without what is internal. */
export const PACKAGE = {
  entryPoints: [path('../../dist/index.d.ts')],
  tsconfig: path('tsconfig.json'),
  readme: path('../../README.md'),
  projectDocuments: [path('../../docs/*.md')],
};

/** Languages of the guides' fences that get colours. */
const HIGHLIGHTED = ['ts', 'sh', 'json', 'diff'];

const OPTIONS = {
  name: 'peerdma',
  includeVersion: true,
  disableSources: true,
  customCss: path('reference.css'),
  highlightLanguages: HIGHLIGHTED,
  markdownItLoader: plainFences,
  excludeExternals: true, // what Error and the like have of their own
  categorizeByGroup: false,
  categoryOrder: ['Guides', ...titles],
  navigation: { includeCategories: true },
  visibilityFilters: {},
  // Guides may link to folders, which typedoc takes for paths that aren't there.
  validation: { notExported: true, invalidLink: true, invalidPath: false, rewrittenLink: true, notDocumented: false },
};

/** Keeps what would have been printed. */
class Complaints extends Logger {
  lines = [];

  log(message, level) {
    if (level >= LogLevel.Warn) this.lines.push(message);
  }

  /** Where a complaint is about a node, or a position in a file, it begins with the place. */
  addContext(message, level, at, file = at?.getSourceFile?.()) {
    if (file === undefined) return message;
    const position = typeof at === 'number' ? at : at.getStart(file, false);
    const { line } = file.getLineAndCharacterOfPosition(position);
    return `${relative('.', file.fileName)}:${line + 1}: ${message}`;
  }
}

/**
 * @param {object} input entry points, `tsconfig` and documents, as typedoc calls them
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

/** Gives every exported name its subject, so that no doc comment has to; guides are called what their headings say. */
function arrange(project, logger) {
  // With guides, typedoc takes an entry point for one module of several.
  for (const module of project.getChildrenByKind(ReflectionKind.Module)) project.mergeReflections(module, project);
  for (const child of project.children ?? []) {
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

function categorize(reflection, title) {
  reflection.comment ??= new Comment();
  reflection.comment.blockTags.push(new CommentTag('@category', [{ kind: 'text', text: title }]));
}

/** Other fences are drawings or a program's output: not TypeScript, for which typedoc takes those without a language. */
function plainFences(markdown) {
  markdown.core.ruler.push('plain_fences', ({ tokens }) => {
    for (const token of tokens) {
      if (token.type !== 'fence') continue;
      const [language] = token.info.split(' ');
      token.info = HIGHLIGHTED.includes(language) ? language : 'text';
    }
  });
}
