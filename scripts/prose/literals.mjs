// Finds the literals of a source file, inside which `//` and `/*` do not begin a comment.
import { createRequire } from 'node:module';
import { extname } from 'node:path';

// TypeScript 6 of the API reference: TypeScript 7 has no parser that JavaScript can call.
const ts = createRequire(new URL('../reference/package.json', import.meta.url))('typescript');

const { SyntaxKind } = ts;
const LITERALS = new Set([
  SyntaxKind.StringLiteral,
  SyntaxKind.NoSubstitutionTemplateLiteral,
  SyntaxKind.TemplateHead,
  SyntaxKind.TemplateMiddle,
  SyntaxKind.TemplateTail,
  SyntaxKind.RegularExpressionLiteral,
]);

/** @typedef {Map<number, number>} Literals the end of each literal by its start, as indexes in the text */

/**
 * Finds the literals of a source file.
 *
 * @param {string} path whose extension names the language
 * @param {string} text the file
 * @returns {Literals}
 */
export function findLiterals(path, text) {
  return extname(path) === '.rs' ? rustLiterals(text) : scriptLiterals(text);
}

function scriptLiterals(text) {
  const source = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest);
  const literals = new Map();
  const visit = (node) => {
    if (LITERALS.has(node.kind)) literals.set(node.getStart(source), node.end);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return literals;
}

// A comment matches first, so that a quotation mark inside of it does not begin a literal.
const RUST_TOKEN =
  /\/\/.*|\/\*[^]*?\*\/|\b[bc]?r(#*)"[^]*?"\1|"(?:\\[^]|[^"\\])*"|'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\\n])'/gu;

function rustLiterals(text) {
  const tokens = [...text.matchAll(RUST_TOKEN)].filter(([token]) => !token.startsWith('/'));
  return new Map(tokens.map((match) => [match.index, match.index + match[0].length]));
}
