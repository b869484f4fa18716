/**
 * The examples of the guides that need real devices (guides/examples.test.ts). They run in this process, because
 * starting one for each would take longer than all of them.
 */
import { type Example, type Kind, readExamples } from '../guides/support/examples.ts';
import { type Devices, testWith } from './support/devices.ts';
import { runExample } from './support/run-example.ts';
import { openVfioFiles } from './support/open-files.ts';

for (const example of readExamples().filter(({ devices }) => devices.length > 0)) {
  const needs: Partial<Record<Kind, number>> = {};
  for (const { kind } of example.devices) needs[kind] = (needs[kind] ?? 0) + 1;
  testWith(needs, `the example at ${example.where} runs`, async (t, found) => {
    await runExample(t, example, assign(example, found));
    t.deepEqual(openVfioFiles(), [], 'nothing is left open');
  });
}

/** The devices that stand for the PCI addresses of the example. */
function assign({ devices }: Example, found: Devices): Record<string, string> {
  const used: Record<Kind, number> = { edu: 0, ivshmem: 0, nvme: 0 };
  return Object.fromEntries(devices.map(({ bdf, kind }) => [bdf, found[kind][used[kind]++] ?? '']));
}
