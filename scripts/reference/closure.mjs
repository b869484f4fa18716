// Finds types that the signatures of a sub-path name and that no program can import.
import ts from 'typescript';

/**
 * Finds types that signatures name and that no entry point exports where a caller expects them. A sub-path or the main
 * entry point has to export a type that the sub-path names. The main entry point has to export all that it names.
 *
 * @param {readonly string[]} files paths of the declarations of the entry points, the main one first
 * @returns {string[]} the problems, one sentence each
 */
export function unexportedTypes(files) {
  const options = { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022, types: [] };
  const program = ts.createProgram(files, options);
  const checker = program.getTypeChecker();
  const [main = [], ...others] = files.map((file) => exportsOf(checker, program.getSourceFile(file)));
  return [main, ...others].flatMap((exported, index) =>
    unexportedIn(program, exported, new Set([...main, ...exported])).map((problem) => `${files[index]}: ${problem}`),
  );
}

function exportsOf(checker, source) {
  return checker.getExportsOfModule(checker.getSymbolAtLocation(source)).map((symbol) => resolved(checker, symbol));
}

function unexportedIn(program, exported, known) {
  const checker = program.getTypeChecker();
  const missing = new Map();
  for (const symbol of exported) {
    for (const declaration of symbol.declarations ?? []) visit(declaration, symbol.name);
  }
  return [...missing].map(([name, user]) => `${user} names ${name}, which is not exported`);

  function visit(node, user) {
    if (ts.isIdentifier(node)) check(checker.getSymbolAtLocation(node), user);
    if (!isPrivate(node)) ts.forEachChild(node, (child) => visit(child, user));
  }

  function check(symbol, user) {
    if (symbol === undefined) return;
    const target = resolved(checker, symbol);
    const [declaration] = target.declarations ?? [];
    if (declaration === undefined || known.has(target)) return;
    if (program.isSourceFileDefaultLibrary(declaration.getSourceFile())) return;
    if (ts.isSourceFile(declaration.parent)) missing.set(target.name, user);
  }
}

/** Returns the symbol that an import or an export stands for. */
function resolved(checker, symbol) {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

function isPrivate(node) {
  return (
    ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)
  );
}
