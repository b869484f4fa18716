/**
 * Lists the callable parts of the package.
 *
 * They are functions, constructors, methods and setters of all exports.
 */
import { readFileSync } from 'node:fs';
import * as exported from '../../ts/index.ts';

const INDEX = new URL('../../ts/index.ts', import.meta.url);
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
  for (const [, names = '', path = ''] of readFileSync(INDEX, 'utf8').matchAll(EXPORT)) {
    const url = new URL(path, INDEX);
    const module: Readonly<Record<string, unknown>> = await import(url.href);
    for (const name of names.split(',').map((one) => one.trim().replace(/^type /, ''))) {
      const value = module[name];
      if (typeof value === 'function') found.push(...(await callsOf(name, value, url)));
    }
  }
  return found;
}

/** Value exports that can't be called. */
export function constants(): string[] {
  return Object.entries(exported)
    .filter(([, value]) => typeof value !== 'function')
    .map(([name]) => name);
}

// oxlint-disable-next-line typescript/no-unsafe-function-type -- whatever is exported
async function callsOf(name: string, value: Function, url: URL): Promise<string[]> {
  if (!String(value).startsWith('class ')) return NO_PARAMETERS.test(bare(value)) ? [] : [name];
  const internal = new Set([...sourceOf(name, url).matchAll(INTERNAL)].map(([, member]) => member));
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
