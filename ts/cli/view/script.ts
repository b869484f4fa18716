/**
 * The script of the page: functions of this package as they are, so that the page explains an address with the very code
 * that a VMM does. Those that need a browser are compiled with its types, and are no part of the program otherwise.
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

/** All of it, which begins at once. */
export async function pageScript(): Promise<string> {
  const all = `./page/all${extname(new URL(import.meta.url).pathname)}`;
  const own: object = await import(new URL(all, import.meta.url).href);
  const functions = [...SHARED, own].flatMap((module): [string, unknown][] => Object.entries(module));
  const texts = functions.map(([name, value]) => {
    if (typeof value === 'function' && value.name === name) return String(value);
    throw new TypeError(`${name} is no function that a page could have by this name`);
  });
  return `'use strict';\n${texts.join('\n')}\nstartPage();`.replaceAll('</', '<\\/');
}
