// Removing the window of a BAR or a region. When it resolves, the window has left guest memory.
import test from 'ava';
import { AddressRange, type DeviceMemory, type ErrorCode, type GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

/** A window at page 4 that hides another region's memory there. */
async function windowOverRegion(t: Parameters<typeof guest>[0]): Promise<{ memory: GuestMemory; bar: DeviceMemory }> {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x30);
  const below = await memory.regions.addRegion({ name: 'below', range: pages(4, 1), priority: -1 });
  await below.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
  await below.mapToGuest();
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await bar.mapToGuest(at(4));
  return { memory, bar };
}

const seenAt4 = (memory: GuestMemory): string[] => memory.inspect().flat.map(({ region }) => region);

for (const code of ['ERR_CLOSED', 'ERR_REGION_REMOVED'] satisfies ErrorCode[]) {
  test(`remove of a window rejects when a target fails to map the memory behind it with ${code}`, async (t) => {
    const { memory, bar } = await windowOverRegion(t);
    const target = new RecordingTarget();
    await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
    target.judge = ({ op, request }) =>
      op === 'map' && request?.name === 'below' ? new PeerDmaError(code, 'the back end is gone') : undefined;
    const error = await rejectsCode(t, bar.remove(), code);
    t.is(error.target, 'recorder');
    t.deepEqual(seenAt4(memory), ['bar'], 'nothing has changed');
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw bar']);

    target.judge = () => undefined;
    await bar.remove();
    t.deepEqual(seenAt4(memory), ['below']);
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw below']);
    await bar.remove();
  });
}

test('remove of a window while guest memory closes resolves when the window has left it', async (t) => {
  const { memory, bar } = await windowOverRegion(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  void memory.close();
  await bar.remove();
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().regions, []);
});

test('remove of a window rejects while a target may reach it, also after guest memory failed to close', async (t) => {
  const { memory, bar } = await windowOverRegion(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  target.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');
  await rejectsCode(t, bar.remove(), 'ERR_RANGE_QUARANTINED');
  await memory.dmaMappers.targetClosed(target);
  await bar.remove();
  t.deepEqual(seenAt4(memory), ['below']);
});

test('removes a region once, however often it is called, and at the end of its scope', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  {
    await using region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
    await region.addMapping({ range: pages(0, 1), backing: { file: taggedFile(t, 'file', 1, 0x31), offset: 0n } });
    await region.mapToGuest();
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw r']);
    await Promise.all([region.remove(), region.remove()]);
    t.deepEqual(target.held(), []);
  }
  {
    await using region = await memory.regions.addRegion({ name: 'scoped', range: pages(4, 1) });
    t.deepEqual(
      memory.inspect().regions.map(({ name }) => name),
      [region.name],
    );
  }
  t.deepEqual(memory.inspect().regions, []);
});

test('remove of a region rejects while a target may reach it, and succeeds after that target is closed', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  target.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await rejectsCode(t, region.remove(), 'ERR_UNMAP_FAILED');
  t.deepEqual(seenAt4(memory), ['r'], 'nothing has changed');
  target.judge = () => undefined;
  await memory.dmaMappers.targetClosed(target);
  await region.remove();
  await region.remove();
  t.deepEqual(memory.inspect().regions, []);
});
