// Closing the window of a BAR: when it resolves, the window has left guest memory.
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
  test(`close of a window rejects when a target refuses the memory behind it with ${code}`, async (t) => {
    const { memory, bar } = await windowOverRegion(t);
    const target = new RecordingTarget();
    await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
    target.judge = ({ op, request }) =>
      op === 'map' && request?.name === 'below' ? new PeerDmaError(code, 'the back end is gone') : undefined;
    const error = await rejectsCode(t, bar.close(), code);
    t.is(error.target, 'recorder');
    t.deepEqual(seenAt4(memory), ['bar'], 'nothing has changed');
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw bar']);

    target.judge = () => undefined;
    await bar.close();
    t.deepEqual(seenAt4(memory), ['below']);
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw below']);
    await bar.close();
  });
}

test('close of a window while guest memory closes resolves when the window has left it', async (t) => {
  const { memory, bar } = await windowOverRegion(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  void memory.close();
  await bar.close();
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().regions, []);
});

test('close of a window rejects while a target may reach it, also after guest memory failed to close', async (t) => {
  const { memory, bar } = await windowOverRegion(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  target.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');
  await rejectsCode(t, bar.close(), 'ERR_RANGE_QUARANTINED');
  await memory.dmaMappers.targetClosed(target);
  await bar.close();
  t.deepEqual(seenAt4(memory), ['below']);
});
