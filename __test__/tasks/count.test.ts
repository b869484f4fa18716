/**
 * The closing line of `npm test`: the results of all suites.
 */
import test from 'ava';
import { Count, countTap, sideBySide } from './scripts.ts';

const counts = ({ passed, failed, skipped }: Count): number[] => [passed, failed, skipped];

/** Counts the output of a suite. */
async function suite(status: number, ...lines: readonly string[]): Promise<Count> {
  const count = new Count();
  const ended = await countTap(count, ({ onLine }) => {
    for (const line of lines) onLine(line);
    return Promise.resolve(status);
  });
  count.require('the suite', ended, count.total);
  return count;
}

test('counts passed, failed and skipped tests, and no line that only looks like a test', async (t) => {
  const output = [
    'TAP version 13',
    'ok 1 - guest › maps a region',
    'not ok 2 - guest › issue \\#2',
    '  ---',
    '    values:',
    "      'Difference': |-",
    '        not ok 9 - a value',
    '  ...',
    'ok 3 - a test without a device # SKIP',
    'not ok 4 - a plan # TODO',
    '# ok 5 - a comment',
    'ok 5 - guest › unmaps it',
    '1..5',
  ];
  t.deepEqual(counts(await suite(1, ...output)), [2, 1, 2]);
});

test('counts a guest that dies without a failed test as a failure', async (t) => {
  t.deepEqual(counts(await suite(125, 'TAP version 13', 'ok 1 - maps a region')), [1, 1, 0]);
  t.deepEqual(counts(await suite(1, 'TAP version 13', 'not ok 1 - maps a region')), [0, 1, 0]);
});

test('counts a suite without tests as a failure', async (t) => {
  t.deepEqual(counts(await suite(0)), [0, 1, 0]);
  t.deepEqual(counts(await suite(0, 'TAP version 13', '1..0')), [0, 1, 0]);
});

test('runs three jobs at a time and adds up their counts', async (t) => {
  let running = 0;
  let most = 0;
  const job = async (count: Count): Promise<void> => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setTimeout(resolve, 10));
    running--;
    count.require('a job', 1, 0);
  };
  const all = new Count();
  await sideBySide(all, [job, job, job, job, job]);
  t.is(most, 3);
  t.deepEqual(counts(all), [0, 5, 0]);
});
