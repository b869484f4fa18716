// Checks the descriptions of all public names, in addition to the checks of typedoc.
import { Comment, ReflectionKind } from 'typedoc';

const CODE = /\bERR_[A-Z0-9_]+\b/g;

const DESCRIBED =
  ReflectionKind.Class |
  ReflectionKind.Interface |
  ReflectionKind.TypeAlias |
  ReflectionKind.Variable |
  ReflectionKind.Property |
  ReflectionKind.GetSignature |
  ReflectionKind.SetSignature |
  ReflectionKind.CallSignature |
  ReflectionKind.ConstructorSignature;

/**
 * Checks the descriptions of a package.
 *
 * @param {import('typedoc').ProjectReflection} project
 * @returns {string[]} the problems, one sentence each
 */
export function findProblems(project) {
  return [
    ...undescribed(project),
    ...unitless(project),
    ...halfDescribedUnions(project),
    ...internal(project),
    ...errorCodes(project),
  ];
}

/** Finds names without a description. A comment that has only tags, such as `@throws`, is not a description. */
function undescribed(project) {
  return project
    .getReflectionsByKind(DESCRIBED)
    .filter((reflection) => !within(reflection, ReflectionKind.Parameter) && !isDescribed(reflection))
    .map((reflection) => `${nameOf(reflection)} has no description`);
}

function isDescribed(reflection) {
  if (textOf(reflection.comment?.summary) !== '') return true;
  if (reflection.kindOf(ReflectionKind.ConstructorSignature) && !reflection.parameters?.length) return true;
  // The alias of a function or object type has the description.
  const literal = reflection.parent?.kindOf(ReflectionKind.TypeLiteral) ? reflection.parent.parent : undefined;
  return reflection.kindOf(ReflectionKind.CallSignature) && literal !== undefined;
}

/** Finds numeric arguments without a description, which should name their unit and range. */
function unitless(project) {
  const arguments_ = [
    ...project.getReflectionsByKind(ReflectionKind.Parameter).filter((one) => !within(one, ReflectionKind.Parameter)),
    ...project.getReflectionsByKind(ReflectionKind.Property).filter((one) => within(one, ReflectionKind.Parameter)),
  ];
  return arguments_
    .filter((argument) => isNumber(argument.type) && !isDescribed(argument))
    .map((argument) => `${nameOf(argument)} has no unit: describe it`);
}

function isNumber(type) {
  if (type?.type === 'union') return type.types.some(isNumber);
  return type?.type === 'intrinsic' && (type.name === 'number' || type.name === 'bigint');
}

/** Finds unions with described and undescribed members. All members of `ErrorCode` need a description. */
function halfDescribedUnions(project) {
  return project.getReflectionsByKind(ReflectionKind.TypeAlias).flatMap((alias) => {
    const { types, elementSummaries = [] } = alias.type?.type === 'union' ? alias.type : { types: [] };
    if (elementSummaries.length === 0 && alias.name !== 'ErrorCode') return [];
    const missing = types.filter((_, index) => textOf(elementSummaries[index]) === '');
    return missing.map((type) => `${alias.name} ${type.toString()} has no description`);
  });
}

/** Finds internal names that are published, such as a parameter with the tag. */
function internal(project) {
  return Object.values(project.reflections)
    .filter(({ comment }) => comment?.hasModifier('@internal'))
    .map((reflection) => `${nameOf(reflection)} is internal, and published`);
}

/** Finds unknown error codes in descriptions, and error codes that no description mentions. */
function errorCodes(project) {
  const codes = new Set(allCodes(project).map(({ value }) => value));
  const documented = new Set();
  const problems = [];
  for (const { where, text } of texts(project)) {
    for (const [code] of text.matchAll(CODE)) {
      if (codes.has(code)) documented.add(code);
      else problems.push(`${where} names ${code}, which is not an ErrorCode`);
    }
  }
  const undocumented = [...codes].filter((code) => !documented.has(code));
  return [...problems, ...undocumented.map((code) => `no description names ${code}`)];
}

function allCodes(project) {
  const alias = project.getReflectionsByKind(ReflectionKind.TypeAlias).find(({ name }) => name === 'ErrorCode');
  return alias?.type.types ?? [];
}

/** Returns the texts of all doc comments and guides. */
function texts(project) {
  return Object.values(project.reflections).map((reflection) => {
    const { comment, content, readme } = reflection;
    const parts = content ??
      readme ?? [...(comment?.summary ?? []), ...(comment?.blockTags.flatMap((tag) => tag.content) ?? [])];
    return { where: nameOf(reflection), text: textOf(parts) };
  });
}

function within(reflection, kind) {
  for (let at = reflection.parent; at !== undefined; at = at.parent) if (at.kindOf(kind)) return true;
  return false;
}

const textOf = (parts = []) => Comment.combineDisplayParts(parts).trim();

/** Returns the path of a name, without unnamed parts such as signatures and inline types. */
function nameOf(reflection) {
  const unnamed = ReflectionKind.SomeSignature | ReflectionKind.TypeLiteral;
  const path = [];
  for (let at = reflection; at !== undefined && !at.isProject(); at = at.parent)
    if (!at.kindOf(unnamed)) path.unshift(at.name);
  return path.join('.') || 'README.md';
}
