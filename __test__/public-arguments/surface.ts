/**
 * Lists the callable parts of the package.
 *
 * They are functions, constructors, methods and setters of all exports of all sub-paths.
 */
import { readFileSync } from 'node:fs';

const top = new URL('../../', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('package.json', top), 'utf8')) as {
  readonly exports: Readonly<Record<string, { readonly default: string } | string>>;
};

/** The files of the entry points by sub-path, such as `./host`. */
export const ENTRY_POINTS: ReadonlyMap<string, URL> = new Map(
  Object.entries(manifest.exports).flatMap(([subPath, target]): [string, URL][] => {
    if (typeof target === 'string') return []; // package.json
    return [[subPath, new URL(target.default.replace(/^\.\/dist\/(.*)\.js$/, 'ts/$1.ts'), top)]];
  }),
);

type Exports = Readonly<Record<string, unknown>>;

/** The value exports of all entry points. */
export const exported: Exports = Object.assign(
  {},
  ...(await Promise.all([...ENTRY_POINTS.values()].map(({ href }) => import(href) as Promise<Exports>))),
) as Exports;

/** `export { … } from './file.ts'`. */
const EXPORT = /export (?:type )?\{([^}]*)\} from '([^']+)'/g;
/** The member that follows a doc comment with `@internal`, or is private to TypeScript. */
const INTERNAL = /(?:@internal\s*\*\/\s+(?:(?:static|async|get|set) )*|^ {2}private )(\w+)/gm;
const NO_PARAMETERS = /^(?:static )?(?:async )?\*?[\w$]*\s*(?:\[[^\]]*\])?\(\)/;

/**
 * All members with arguments.
 *
 * `name` of a function, `new Name` of a class, `Name.method` and `Name#method`. Classes that are exported as types are
 * included: callers have their objects.
 */
export async function publicSurface(): Promise<string[]> {
  const found: string[] = [];
  for (const { name, value, url } of await exportedFunctions()) found.push(...(await callsOf(name, value, url)));
  return [...new Set(found)];
}

interface ExportedFunction {
  readonly name: string;
  // oxlint-disable-next-line typescript/no-unsafe-function-type -- whatever is exported
  readonly value: Function;
  /** Of its file. */
  readonly url: URL;
}

/** The functions and classes of all exports, classes that are exported as types among them. */
async function exportedFunctions(): Promise<ExportedFunction[]> {
  const found: ExportedFunction[] = [];
  for (const entryPoint of ENTRY_POINTS.values()) {
    for (const [, names = '', path = ''] of readFileSync(entryPoint, 'utf8').matchAll(EXPORT)) {
      const url = new URL(path, entryPoint);
      const module: Exports = await import(url.href);
      for (const name of names.split(',').map((one) => one.trim().replace(/^type /, ''))) {
        const value = module[name];
        if (typeof value === 'function') found.push({ name, value, url });
      }
    }
  }
  return found;
}

/** The public methods of each exported class, by its name. Some have symbols as names. */
export async function publicMethods(): Promise<Map<string, readonly (string | symbol)[]>> {
  const found = new Map<string, readonly (string | symbol)[]>();
  for (const { name, value, url } of await exportedFunctions()) {
    if (!isClass(value)) continue;
    const internal = internalMembers(name, url);
    const members = Reflect.ownKeys(value.prototype);
    found.set(
      name,
      members.filter((member) => typeof member === 'symbol' || !internal.has(member)),
    );
  }
  return found;
}

// oxlint-disable-next-line typescript/no-unsafe-function-type -- whatever is exported
function isClass(value: Function): boolean {
  return String(value).startsWith('class ');
}

function internalMembers(name: string, url: URL): ReadonlySet<string | undefined> {
  return new Set([...sourceOf(name, url).matchAll(INTERNAL)].map(([, member]) => member));
}

/** Value exports that cannot be called. */
export function constants(): string[] {
  return Object.entries(exported)
    .filter(([, value]) => typeof value !== 'function')
    .map(([name]) => name);
}

// oxlint-disable-next-line typescript/no-unsafe-function-type -- whatever is exported
async function callsOf(name: string, value: Function, url: URL): Promise<string[]> {
  if (!isClass(value)) return NO_PARAMETERS.test(bare(value)) ? [] : [name];
  const internal = internalMembers(name, url);
  const members: readonly (readonly [string, string, PropertyDescriptor])[] = [
    ...Object.entries(Object.getOwnPropertyDescriptors(value)).map((one) => ['.', ...one] as const),
    ...Object.entries(Object.getOwnPropertyDescriptors(value.prototype)).map((one) => ['#', ...one] as const),
  ];
  const calls = members.flatMap(([separator, member, { value: method, set }]) => {
    if (internal.has(member) || member === 'prototype' || member === 'constructor') return [];
    if (set === undefined && (typeof method !== 'function' || NO_PARAMETERS.test(String(method)))) return [];
    return [`${name}${separator}${member}`];
  });
  return hasPublicConstructor(name, url) ? [`new ${name}`, ...calls] : calls;
}

/** The text of a function from its parameters on. */
// oxlint-disable-next-line typescript/no-unsafe-function-type -- whatever is exported
function bare(value: Function): string {
  return String(value).replace(/^(async )?function\*? /, '$1');
}

/** Whether one of the constructors is public and takes arguments. */
function hasPublicConstructor(name: string, url: URL): boolean {
  return /^ {2}constructor\((?!\))/m.test(sourceOf(name, url).replaceAll(INTERNAL, ''));
}

/** The text of a class in its file. */
function sourceOf(name: string, url: URL): string {
  const text = readFileSync(url, 'utf8');
  const from = text.search(new RegExp(`^export class ${name}\\b`, 'm'));
  return text.slice(from, text.indexOf('\n}\n', from));
}
