// Turns of the event loop between the parts of long work.
import test from 'ava';
import { Slices } from '../ts/slices.ts';

function busyFor(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

function steps(slices: Slices, count: number): Promise<void>[] {
  return Array.from({ length: count }, () => slices.step()).filter((turn) => turn !== undefined);
}

test('asks for a turn of the event loop after some milliseconds of work', async (t) => {
  const slices = new Slices();
  let turned = false;
  setImmediate(() => (turned = true));
  busyFor(5);
  const [turn, ...more] = steps(slices, 64);
  t.deepEqual(more, []);
  t.false(turned);
  await turn;
  t.true(turned);
  t.deepEqual(steps(slices, 63), [], 'the clock is not read for each step');
  busyFor(5);
  t.is(steps(slices, 64).length, 1);
});

test('works through a long list with turns of the event loop, and through a short one without', async (t) => {
  const list = Array.from({ length: 200 }, (_, index) => index);
  let turned = false;
  setImmediate(() => (turned = true));
  const short = await new Slices().filter(list, (index) => index % 2 === 0);
  t.deepEqual(
    short,
    list.filter((index) => index % 2 === 0),
  );
  t.false(turned);
  const seen: number[] = [];
  await new Slices().forEach(list, (index) => {
    if (index === 10) busyFor(5);
    if (turned) seen.push(index);
  });
  t.deepEqual(seen, list.slice(64), 'the turn comes when the clock is read');
});
