// What the reference has to say of every public name, beyond what typedoc itself asks for.
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
 * @param {import('typedoc').ProjectReflection} project
 * @returns {string[]} what is missing or wrong, a sentence each
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

/** A comment that has only tags (`@throws`, say) is no description. */
function undescribed(project) {
  return project
    .getReflectionsByKind(DESCRIBED)
    .filter((reflection) => !within(reflection, ReflectionKind.Parameter) && !isDescribed(reflection))
    .map((reflection) => `${nameOf(reflection)} has no description`);
}

function isDescribed(reflection) {
  if (textOf(reflection.comment?.summary) !== '') return true;
  if (reflection.kindOf(ReflectionKind.ConstructorSignature) && !reflection.parameters?.length) return true;
  // A type that is a function or an object is described where it is named.
  const literal = reflection.parent?.kindOf(ReflectionKind.TypeLiteral) ? reflection.parent.parent : undefined;
  return reflection.kindOf(ReflectionKind.CallSignature) && literal !== undefined;
}

/** Numbers that a call takes are of something, and most have bounds. */
function unitless(project) {
  const arguments_ = [
    ...project.getReflectionsByKind(ReflectionKind.Parameter).filter((one) => !within(one, ReflectionKind.Parameter)),
    ...project.getReflectionsByKind(ReflectionKind.Property).filter((one) => within(one, ReflectionKind.Parameter)),
  ];
  return arguments_
    .filter((argument) => isNumber(argument.type) && !isDescribed(argument))
    .map((argument) => `${nameOf(argument)} is a number of what?`);
}

function isNumber(type) {
  if (type?.type === 'union') return type.types.some(isNumber);
  return type?.type === 'intrinsic' && (type.name === 'number' || type.name === 'bigint');
}

/** Where one member of a union is described, all are; those of `ErrorCode` have to be. */
function halfDescribedUnions(project) {
  return project.getReflectionsByKind(ReflectionKind.TypeAlias).flatMap((alias) => {
    const { types, elementSummaries = [] } = alias.type?.type === 'union' ? alias.type : { types: [] };
    if (elementSummaries.length === 0 && alias.name !== 'ErrorCode') return [];
    const missing = types.filter((_, index) => textOf(elementSummaries[index]) === '');
    return missing.map((type) => `${alias.name} ${type.toString()} has no description`);
  });
}

/** What is internal and has not been stripped, as where the tag is on a parameter. */
function internal(project) {
  return Object.values(project.reflections)
    .filter(({ comment }) => comment?.hasModifier('@internal'))
    .map((reflection) => `${nameOf(reflection)} is internal, and published`);
}

/** Error codes that are told of exist, and those that exist are told of where they are thrown. */
function errorCodes(project) {
  const codes = new Set(project.getChildByName('ErrorCode')?.type.types.map(({ value }) => value));
  const told = new Set();
  const problems = [];
  for (const { where, text } of texts(project)) {
    for (const [code] of text.matchAll(CODE)) {
      if (codes.has(code)) told.add(code);
      else problems.push(`${where} speaks of ${code}, which is no ErrorCode`);
    }
  }
  const untold = [...codes].filter((code) => !told.has(code));
  return [...problems, ...untold.map((code) => `no description says who throws ${code}`)];
}

/** All doc comments and guides. */
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

/** Without what has no name in the source: signatures and types in place. */
function nameOf(reflection) {
  const unnamed = ReflectionKind.SomeSignature | ReflectionKind.TypeLiteral;
  const path = [];
  for (let at = reflection; at !== undefined && !at.isProject(); at = at.parent)
    if (!at.kindOf(unnamed)) path.unshift(at.name);
  return path.join('.') || 'README.md';
}
