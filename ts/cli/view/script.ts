/**
 * Builds the script of the page from the source text of functions of this package, so that the page and
 * `memory.explain()` run the same code. Functions that need a browser are in `page/`, compiled with its types.
 */
import { extname } from 'node:path';
import { quarantineOf } from '../../guest/inspect.ts';
import { explanation } from '../../guest/explain.ts';
import * as layers from '../../guest/layers.ts';
import * as places from '../../guest/address-text.ts';
import * as targets from '../../guest/target-view.ts';
import * as delta from '../../journal/delta.ts';
import * as columns from './columns.ts';
import * as format from './format.ts';

const SHARED = [{ quarantineOf, explanation }, layers, places, targets, delta, columns, format];

/** Returns the whole script, which ends with the call that starts it. */
export async function pageScript(): Promise<string> {
  const all = `./page/all${extname(new URL(import.meta.url).pathname)}`;
  const own: object = await import(new URL(all, import.meta.url).href);
  const functions = [...SHARED, own].flatMap((module): [string, unknown][] => Object.entries(module));
  const texts = functions.map(([name, value]) => {
    if (typeof value === 'function' && value.name === name) return String(value);
    throw new TypeError(`${name} is not a function of this name, so the page cannot contain it`);
  });
  return `'use strict';\n${texts.join('\n')}\nstartPage();`.replaceAll('</', '<\\/');
}
