/**
 * Lists that are so long that they are mapped and unmapped in batches. Containers and address spaces of the native core
 * are stubs here.
 */
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type DmaTarget, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, pages } from '../support/pages.ts';
import { until } from '../support/until.ts';
import { NativeSpaceStub, abandon, join, ports, refusal, regionOf, states, stuck } from './native-space-stub.ts';

const BATCH = 1024;
/** The last batch is so short that it would be mapped on this thread if it were alone. */
const COUNT = 2 * BATCH + 100;

/** Page numbers, the last first. */
function downFrom(end: number, start: number): bigint[] {
  return Array.from({ length: end - start }, (_, index) => BigInt(end - 1 - index));
}

function countOf(stub: NativeSpaceStub, call: string): number {
  return stub.calls.filter((one) => one === call).length;
}

/** Ends the calls of a map, each after the next batch is in progress. */
async function mapThreeBatches(stub: NativeSpaceStub, mapped: Promise<void>): Promise<void> {
  await until(() => countOf(stub, 'mapAsync') === 2, 'two batches are in progress');
  stub.finishFirst();
  await until(() => countOf(stub, 'mapAsync') === 3, 'the third batch is in progress');
  await stub.settle(mapped);
}

test('prepares the next batch while one is mapped, and no further batch', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    const mapped = region.mapToGuest();
    await until(() => countOf(stub, 'mapAsync') === 2, 'two batches are in progress');
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    t.is(countOf(stub, 'mapAsync'), 2);
    await mapThreeBatches(stub, mapped);
    t.is(countOf(stub, 'mapAsync'), 3);
    t.is(countOf(stub, 'map'), 0, 'the short batch would wait for the long ones on this thread');
    await stub.settle(handle.remove());
    t.is(countOf(stub, 'unmapAsync'), 3);
    t.deepEqual(stub.unmapped, downFrom(COUNT, 0));
  }
});

test('unmaps the batches that are mapped when another one fails', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [null, refusal(5)];
    const error = await rejectsCode(t, mapThreeBatches(stub, region.mapToGuest()), 'ERR_MAPPING_LIMIT');
    t.deepEqual(error.range, pages(BATCH + 5, 1));
    t.deepEqual(states(handle), []);
    t.deepEqual(stub.unmapped, [...downFrom(COUNT, 2 * BATCH), ...downFrom(BATCH, 0)]);
    await stub.settle(handle.remove());
  }
});

test('quarantines the rest of a batch that fails, and mappings of the others that cannot be unmapped', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [null, refusal(5, stuck(2))];
    stub.unmapFailures = [[stuck(0)]];
    const error = await rejectsCode(t, mapThreeBatches(stub, region.mapToGuest()), 'ERR_ROLLBACK_FAILED');
    t.deepEqual(error.range, pages(BATCH + 5, 1));
    t.deepEqual(states(handle), [
      [BigInt(BATCH + 2), 'quarantined'],
      [BigInt(COUNT - 1), 'quarantined'],
    ]);
    t.regex(error.message, /; and 2 step\(s\) of the rollback failed: .*0x402000.*; .*0x863000/);
    t.notRegex(error.message, /rollback.*rollback/, 'both failures of the rollback are in one list');
    const { errors } = error.cause as AggregateError;
    t.deepEqual(
      errors.map(({ code }) => code as string),
      ['ERR_MAPPING_LIMIT', 'ERR_UNMAP_FAILED', 'ERR_UNMAP_FAILED'],
    );
    await abandon(memory, port);
  }
});

test('quarantines what remains of the batch that was under way when the one before it failed', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.mapFailures = [refusal(1), refusal(2, stuck(0))];
    const error = await rejectsCode(t, stub.settle(region.mapToGuest()), 'ERR_ROLLBACK_FAILED');
    t.deepEqual(error.range, pages(1, 1), 'the first that could not be mapped');
    t.deepEqual(states(handle), [[BigInt(BATCH), 'quarantined']]);
    t.is(countOf(stub, 'mapAsync'), 2, 'no batch is begun after that');
    await abandon(memory, port);
  }
});

test('begins no batch after the target is closed', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    await stub.settle(join(t, memory, [stub, port]));
    const mapped = region.mapToGuest();
    await until(() => countOf(stub, 'mapAsync') === 2, 'two batches are under way');
    const closed = abandon(memory, port);
    await mapped;
    await closed;
    stub.release();
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    t.is(countOf(stub, 'mapAsync'), 2);
  }
});

test('stops after the batch that can not be unmapped, and maps again what is before it', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, COUNT);
    await region.mapToGuest();
    const handle = await stub.settle(join(t, memory, [stub, port]));
    stub.unmapFailures = [[], [stuck(3)]];
    await rejectsCode(t, stub.settle(region.unmapFromGuest()), 'ERR_UNMAP_FAILED');
    t.is(countOf(stub, 'unmapAsync'), 2);
    t.is(countOf(stub, 'map'), BATCH + 3, 'one by one');
    t.deepEqual(
      states(handle).filter(([, state]) => state !== 'mapped'),
      [[BigInt(BATCH + 3), 'quarantined']],
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

test('passes a long list to a custom target in batches', async (t) => {
  const target = new BatchTarget();
  const { region } = await joinBatches(t, target);
  await region.mapToGuest();
  t.deepEqual(target.batches, [BATCH, BATCH, 100]);
});

test('unmaps the earlier batches from a custom target when one fails', async (t) => {
  const target = new BatchTarget();
  const { memory, region, handle } = await joinBatches(t, target);
  target.failingBatch = 2;
  const error = await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  t.deepEqual(error.range, pages(BATCH, 1), 'the target did not name one: the first of the batch');
  t.deepEqual(target.unmapped, downFrom(BATCH, 0));
  t.deepEqual(states(handle), []);

  target.failingBatch = 4;
  target.failingUnmap = at(7);
  await rejectsCode(t, region.mapToGuest(), 'ERR_ROLLBACK_FAILED');
  t.deepEqual(states(handle), [[7n, 'quarantined']]);
  await memory.dmaMappers.targetClosed(target);
});
