/**
 * Tests whose scenarios run in another process, which reports them all at its end.
 */
import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { type Devices, type Needs, testWith } from './devices.ts';
import type { Outcome } from './run-scenarios.ts';

/** The folders of fault injection in a kernel with these options. */
const FOLDERS = {
  CONFIG_FAILSLAB: '/sys/kernel/debug/failslab',
  CONFIG_IOMMUFD_TEST: '/sys/kernel/debug/fail_iommufd',
} as const;

/**
 * Makes a test of each scenario. The first one starts the process. Without the option of the kernel they are skipped.
 */
export function testScenarios(
  needs: Needs,
  option: keyof typeof FOLDERS,
  titles: readonly string[],
  start: (t: ExecutionContext, devices: Devices) => unknown,
): void {
  if (!existsSync(FOLDERS[option])) {
    for (const title of titles) test.serial.skip(`${title} (needs a kernel with ${option})`, () => {});
    return;
  }
  let outcomes: Record<string, Outcome> | undefined;
  for (const title of titles) {
    testWith(needs, title, async (t, devices) => {
      t.timeout(300_000);
      if (title === titles[0]) outcomes = start(t, devices) as Record<string, Outcome>;
      t.deepEqual(Object.keys(outcomes ?? {}), titles);
      const { error, log = [] } = outcomes?.[title] ?? {};
      for (const line of log) t.log(line);
      t.is(error, undefined);
    });
  }
}
