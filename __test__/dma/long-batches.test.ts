/**
 * Batches that are so long that they are mapped and unmapped in parts. Containers and address spaces of the native core
 * are stubs here.
 */
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type DmaTarget, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, pages } from '../support/pages.ts';
import { until } from '../support/until.ts';
import { NativeSpaceStub, abandon, join, ports, refusal, regionOf, states, stuck } from './native-space-stub.ts';

const PART = 1024;
/** The last part is so short that it would be mapped on this thread by itself. */
const COUNT = 2 * PART + 100;

/** Page numbers, the last first. */
function downFrom(end: number, start: number): bigint[] {
  return Array.from({ length: end - start }, (_, index) => BigInt(end - 1 - index));
}

function countOf(stub: NativeSpaceStub, call: string): number {
  return stub.calls.filter((one) => one === call).length;
}

/** Ends the calls of a map, each after the next part is under way. */
async function mapThreeParts(stub: NativeSpaceStub, mapped: Promise<void>): Promise<void> {
  await until(() => countOf(stub, 'mapAsync') === 2, 'two parts are under way');
  stub.finishFirst();
  await until(() => countOf(stub, 'mapAsync') === 3, 'the third part is under way');
  await stub.settle(mapped);
}

test('prepares the next part while one is mapped, and no further part', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    const mapped = region.mapToGuest();
    await until(() => countOf(stub, 'mapAsync') === 2, 'two parts are under way');
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    t.is(countOf(stub, 'mapAsync'), 2);
    await mapThreeParts(stub, mapped);
    t.is(countOf(stub, 'mapAsync'), 3);
    t.is(countOf(stub, 'map'), 0, 'the short part would wait for the long ones on this thread');
    await stub.settle(handle.remove());
    t.is(countOf(stub, 'unmapAsync'), 3);
    t.deepEqual(stub.unmapped, downFrom(COUNT, 0));
  }
});

test('unmaps the parts that are mapped when another one fails', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [[], [refusal(5)]];
    const error = await rejectsCode(t, mapThreeParts(stub, region.mapToGuest()), 'ERR_MAPPING_LIMIT');
    t.deepEqual(error.range, pages(PART + 5, 1));
    t.deepEqual(states(handle), []);
    t.deepEqual(stub.unmapped, [...downFrom(COUNT, 2 * PART), ...downFrom(PART, 0)]);
    await stub.settle(handle.remove());
  }
});

test('quarantines what remains of a part that fails, and what can not be unmapped of the others', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [[], [refusal(5), stuck(2)]];
    stub.unmapFailures = [[stuck(0)]];
    const error = await rejectsCode(t, mapThreeParts(stub, region.mapToGuest()), 'ERR_ROLLBACK_FAILED');
    t.deepEqual(error.range, pages(PART + 5, 1));
    t.deepEqual(states(handle), [
      [BigInt(PART + 2), 'quarantined'],
      [BigInt(COUNT - 1), 'quarantined'],
    ]);
    await abandon(memory, port);
  }
});

test('quarantines what remains of the part that was under way when the one before it failed', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [[refusal(1)], [refusal(2), stuck(0)]];
    const error = await rejectsCode(t, stub.settle(region.mapToGuest()), 'ERR_ROLLBACK_FAILED');
    t.deepEqual(error.range, pages(1, 1), 'the first that could not be mapped');
    t.deepEqual(states(handle), [[BigInt(PART), 'quarantined']]);
    t.is(countOf(stub, 'mapAsync'), 2, 'no part is begun after that');
    await abandon(memory, port);
  }
});

test('begins no part after the target is closed', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    await stub.settle(join(t, memory, [stub, port]));
    const mapped = region.mapToGuest();
    await until(() => countOf(stub, 'mapAsync') === 2, 'two parts are under way');
    const closed = abandon(memory, port);
    await mapped;
    await closed;
    stub.release();
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    t.is(countOf(stub, 'mapAsync'), 2);
  }
});

test('stops after the part that can not be unmapped, and maps again what is before it', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    await region.mapToGuest();
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.unmapFailures = [[], [stuck(3)]];
    await rejectsCode(t, stub.settle(region.unmapFromGuest()), 'ERR_UNMAP_FAILED');
    t.is(countOf(stub, 'unmapAsync'), 2);
    t.is(countOf(stub, 'map'), PART + 3, 'one by one');
    t.deepEqual(
      states(handle).filter(([, state]) => state !== 'mapped'),
      [[BigInt(PART + 3), 'quarantined']],
    );
    await abandon(memory, port);
  }
});

/** A custom target that takes batches. The call of a batch with a number fails. */
class BatchTarget implements DmaTarget {
  readonly name = 'batches';
  readonly batches: number[] = [];
  readonly unmapped: bigint[] = [];
  failingBatch = -1;
  failingUnmap = -1n;

  mapDma(): void {}

  mapDmaBatch(requests: readonly unknown[]): void {
    if (this.batches.push(requests.length) === this.failingBatch) throw new Error('no room');
  }

  unmapDma({ start }: { start: bigint }): void {
    if (start === this.failingUnmap) throw new PeerDmaError('ERR_UNMAP_FAILED', 'stuck');
    this.unmapped.push(start / at(1));
  }
}

async function joinBatches(t: ExecutionContext, target: BatchTarget) {
  const memory = await guest(t);
  const region = await regionOf(t, memory, COUNT);
  return { memory, region, handle: await memory.dmaMappers.addDmaMapper(target) };
}

test('passes a long batch to a custom target in parts', async (t) => {
  const target = new BatchTarget();
  const { region } = await joinBatches(t, target);
  await region.mapToGuest();
  t.deepEqual(target.batches, [PART, PART, 100]);
});

test('unmaps the earlier parts from a custom target when one fails', async (t) => {
  const target = new BatchTarget();
  const { memory, region, handle } = await joinBatches(t, target);
  target.failingBatch = 2;
  const error = await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  t.deepEqual(error.range, pages(PART, 1), 'the target did not name one: the first of the part');
  t.deepEqual(target.unmapped, downFrom(PART, 0));
  t.deepEqual(states(handle), []);

  target.failingBatch = 4;
  target.failingUnmap = at(7);
  await rejectsCode(t, region.mapToGuest(), 'ERR_ROLLBACK_FAILED');
  t.deepEqual(states(handle), [[7n, 'quarantined']]);
  await memory.dmaMappers.targetClosed(target);
});
