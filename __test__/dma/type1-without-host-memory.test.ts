// The type1 target without a container: a stand-in object that throws when it is touched takes its place, so these
// tests show only what happens before the kernel is asked. Real containers are tested in __test__/vfio.
import test from 'ava';
import type { DmaMapRequest, HostMemory } from '../../ts/index.ts';
import { Type1Target } from '../../ts/vfio/type1/type1-target.ts';
import { rejectsCode } from '../support/errors.ts';
import { guest, PAGE, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

/** No container: whatever is asked of it throws. */
function standIn(): ConstructorParameters<typeof Type1Target>[0] {
  return new Proxy({} as ConstructorParameters<typeof Type1Target>[0], {
    get(_, property) {
      throw new Error(`the container was asked for ${String(property)}`);
    },
  });
}

const bare: DmaMapRequest = { range: pages(0, 1), backing: 'private', writable: true, kind: 'ram', name: 'r' };

test('a type1 target asked to map without host memory returns an error, never a crash', async (t) => {
  const target = new Type1Target(standIn(), 'container');
  const lender = new RecordingTarget({ needsVa: true });
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  await memory.dmaMappers.addDmaMapper(lender);
  const [complete] = lender.held();
  if (complete === undefined) throw new Error('RAM was lent');
  const attempts: Record<string, () => unknown> = {
    alone: () => target.mapDma(bare),
    'in a batch': () => target.mapDmaBatch([bare]),
    'after a complete one': () => target.mapDmaBatch([complete, { ...bare, range: pages(4, 1) }]),
  };
  for (const [what, attempt] of Object.entries(attempts)) {
    const error = await rejectsCode(t, (async () => attempt())(), 'ERR_HOST_MEMORY_REQUIRED', what);
    t.is(error.target, 'container');
    t.true(error.message.includes('"r"'));
  }
});

test('a type1 target refuses forged and ended host memory', async (t) => {
  const target = new Type1Target(standIn(), 'container');
  for (const forged of [{}, { length: PAGE }, 0x1000n]) {
    const hostMemory = forged as unknown as HostMemory;
    const mapping = (async () => target.mapDma({ ...bare, hostMemory }))();
    await rejectsCode(t, mapping, 'ERR_INVALID_ARGUMENT');
  }
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const lender = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(lender);
  const [ended] = lender.held();
  if (ended === undefined) throw new Error('RAM was lent');
  await handle.remove();
  await rejectsCode(t, (async () => target.mapDma(ended))(), 'ERR_CLOSED');
});

test('a batch of two guest memories is refused by a type1 target', async (t) => {
  const target = new Type1Target(standIn(), 'container');
  const lent: DmaMapRequest[] = [];
  for (let n = 0; n < 2; n++) {
    const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
    const lender = new RecordingTarget({ needsVa: true });
    await memory.dmaMappers.addDmaMapper(lender);
    lent.push(...lender.held());
  }
  t.is(lent.length, 2);
  await rejectsCode(t, (async () => target.mapDmaBatch(lent))(), 'ERR_INVALID_ARGUMENT');
});

test('a batch of nothing asks nothing of the container', async (t) => {
  const target = new Type1Target(standIn(), 'container');
  await t.notThrowsAsync((async () => target.mapDmaBatch([]))());
});
