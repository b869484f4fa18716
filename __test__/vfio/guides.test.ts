/**
 * The examples of the guides that need real devices (guides/examples.test.ts). They run in this process, because
 * starting one for each would take longer than all of them.
 */
import type { ExecutionContext } from 'ava';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';
import {
  type Example,
  type Kind,
  brokenPromise,
  compiledExample,
  placed,
  readExamples,
} from '../guides/support/examples.ts';
import { type Devices, testWith } from './support/devices.ts';
import { openVfioFiles } from './support/open-files.ts';

const PACKAGE = { folder: new URL('../../ts/', import.meta.url).href, extension: '.js' } as const;

for (const example of readExamples().filter(({ devices }) => devices.length > 0)) {
  const needs: Partial<Record<Kind, number>> = {};
  for (const { kind } of example.devices) needs[kind] = (needs[kind] ?? 0) + 1;
  testWith(needs, `the example at ${example.where} runs`, async (t, found) => {
    const addresses = assign(example, found);
    const printed = await run(t, placed(compiledExample(example), PACKAGE, addresses));
    t.is(brokenPromise(placed(example.code, PACKAGE, addresses), printed), undefined);
    t.deepEqual(openVfioFiles(), [], 'nothing is left open');
  });
}

/** The devices that stand for the PCI addresses of the example. */
function assign({ devices }: Example, found: Devices): Record<string, string> {
  const used: Record<Kind, number> = { edu: 0, ivshmem: 0, nvme: 0 };
  return Object.fromEntries(devices.map(({ bdf, kind }) => [bdf, found[kind][used[kind]++] ?? '']));
}

/** Collects the lines that the code prints until its last statement and the disposal of its resources. */
async function run(t: ExecutionContext, code: string): Promise<string[]> {
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
