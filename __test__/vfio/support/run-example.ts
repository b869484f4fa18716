/**
 * Runs an example of the guides in this process.
 */
import type { ExecutionContext } from 'ava';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';
import { type Example, brokenPromise, compiledExample, placed } from '../../guides/support/examples.ts';

const PACKAGE = { folder: new URL('../../../ts/', import.meta.url).href, extension: '.js' } as const;

/**
 * Runs an example, and checks that it prints what its comments promise.
 *
 * @param addresses the PCI addresses of the devices that stand for those in the code
 */
export async function runExample(
  t: ExecutionContext,
  example: Example,
  addresses: Readonly<Record<string, string>> = {},
): Promise<void> {
  const printed = await printedBy(t, placed(compiledExample(example), PACKAGE, addresses));
  t.is(brokenPromise(placed(example.code, PACKAGE, addresses), printed), undefined);
}

/** Collects the lines that the code prints until its last statement and the disposal of its resources. */
async function printedBy(t: ExecutionContext, code: string): Promise<string[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'peerdma-guide-'));
  const before = process.cwd();
  const { log } = console;
  const printed: string[] = [];
  try {
    process.chdir(scratch);
    console.log = (...values: unknown[]) => printed.push(...format(...values).split('\n'));
    const script = join(scratch, 'example.mjs');
    writeFileSync(script, code);
    await import(pathToFileURL(script).href);
  } finally {
    console.log = log;
    process.chdir(before);
    rmSync(scratch, { recursive: true });
  }
  t.log(printed.join('\n'));
  return printed;
}
