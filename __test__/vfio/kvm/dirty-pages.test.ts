/**
 * The pages that a guest's processors write.
 */
import test from 'ava';
import { AddressRange } from '../../../ts/index.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, RAM_LENGTH, smallGuest } from './support/small-guest.ts';

const RAM = AddressRange.of(0n, RAM_LENGTH);
const PAGE = 0x1000n;

const store = (code: Code, gpa: bigint): Code => code.rax(1n).rbx(gpa).store(8);

test.serial('reports each page that the guest writes once, also if its memory is replaced meanwhile', async (t) => {
  const code = store(store(new Code(), FREE), FREE + 2n * PAGE).out(END_PORT);
  store(code, FREE + 5n * PAGE).out(END_PORT);
  const { vm, memory } = await smallGuest(t, code);
  const tracking = await vm.startDirtyTracking();
  await t.throwsAsync(vm.startDirtyTracking(), { code: 'ERR_INVALID_ARGUMENT' });
  const free = AddressRange.between(FREE, RAM_LENGTH);
  const dirty = async (): Promise<string[]> => [...(await tracking.readDirty(free)).ranges()].map(String);
  t.deepEqual(await dirty(), []);
  t.is(await vm.run(), 'end');
  t.deepEqual(await dirty(), [String(AddressRange.of(FREE, PAGE)), String(AddressRange.of(FREE + 2n * PAGE, PAGE))]);
  t.deepEqual(await dirty(), []);
  t.is(await vm.run(), 'end');
  // The slot is replaced: its log goes with it.
  const range = AddressRange.of(FREE + 8n * PAGE, PAGE);
  const region = await memory.regions.addRegion({ name: 'overlay', range, priority: 200 });
  await region.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await region.mapToGuest();
  t.true((await dirty()).includes(String(AddressRange.of(FREE + 5n * PAGE, PAGE))));
  await tracking.stop();
  const again = await vm.startDirtyTracking();
  t.false((await again.readDirty(RAM)).contains(FREE));
  await again.stop();
});
