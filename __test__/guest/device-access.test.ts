// The policy of device memory: which windows each target maps, by mmap, peerToPeer and domains.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DeviceAccessOptions, type DmaMapperOptions, type GuestMemory } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

const WINDOWS: Readonly<Record<string, DeviceAccessOptions>> = {
  open: {},
  trapped: { mmap: false },
  isolated: { peerToPeer: false },
  sealed: { mmap: false, peerToPeer: false },
  a: { peerToPeerDomain: 'a' },
  b: { peerToPeerDomain: 'b' },
  trappedA: { peerToPeerDomain: 'a', mmap: false },
};

/** The windows that a target with these options maps. */
const TARGETS: readonly [options: DmaMapperOptions, windows: readonly string[]][] = [
  [{}, ['open', 'trapped']],
  [{ peerToPeer: 'required' }, ['open', 'trapped']],
  [{ peerToPeer: 'off' }, []],
  [{ peerToPeerDomains: ['default'] }, ['open', 'trapped']],
  [{ peerToPeerDomains: [] }, []],
  [{ peerToPeerDomains: ['a'] }, ['a', 'trappedA']],
  [{ peerToPeerDomains: ['b', 'default'] }, ['open', 'trapped', 'b']],
  [{ peerToPeerDomains: ['a', 'b'], peerToPeer: 'required' }, ['a', 'b', 'trappedA']],
];
const FOR_PROCESSORS = ['open', 'isolated', 'a', 'b'];

/** Guest memory with RAM, and a window for each policy, 4 pages apart. */
async function withWindows(t: ExecutionContext): Promise<{ memory: GuestMemory; move: () => Promise<void> }> {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const windows = await Promise.all(
    Object.entries(WINDOWS).map(async ([name, options]) => {
      const window = memory.newDeviceMemory({ name, length: PAGE, ...options });
      await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
      return window;
    }),
  );
  let base = 0;
  const move = async (): Promise<void> => {
    base += 40;
    for (const [index, window] of windows.entries()) await window.mapToGuest(at(base + index * 4));
  };
  return { memory, move };
}

const heldWindows = (target: RecordingTarget): string[] => target.held().map(({ name }) => name);

for (const order of ['before', 'after'] as const) {
  test(`each target maps the windows of its policy, if it joins ${order} the windows are placed`, async (t) => {
    const { memory, move } = await withWindows(t);
    if (order === 'after') await move();
    const targets = TARGETS.map(([, held], index) => [new RecordingTarget({ name: `target ${index}` }), held] as const);
    const handles = [];
    for (const [index, [target]] of targets.entries()) {
      handles.push(await memory.dmaMappers.addDmaMapper(target, TARGETS[index]?.[0]));
    }
    const processors = new RecordingTarget({ name: 'cpu', mapsForProcessors: true, needsVa: true });
    const all = [...targets, [processors, FOR_PROCESSORS] as const];
    handles.push(await memory.dmaMappers.addDmaMapper(processors));
    for (const round of ['first', 'second']) {
      if (order === 'before' || round === 'second') await move();
      for (const [index, [target, held]] of all.entries()) {
        t.deepEqual(heldWindows(target), ['ram0', ...held], `${round} ${target.name}`);
        for (const { region, state, reason, code } of handles[index]?.status() ?? []) {
          const isHeld = region === 'ram0' || held.includes(region);
          t.deepEqual(
            [state, typeof reason, code],
            [isHeld ? 'mapped' : 'skipped', isHeld ? 'undefined' : 'string', undefined],
          );
        }
      }
    }
    for (const handle of handles) await handle.remove();
    for (const [target] of all) t.deepEqual([target.held(), target.breaches], [[], []]);
  });
}

test('explains why the policy excludes a target', async (t) => {
  const { memory, move } = await withWindows(t);
  await move();
  const other = new RecordingTarget({ name: 'other' });
  await memory.dmaMappers.addDmaMapper(other);
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'cpu', mapsForProcessors: true }));
  const explained = (page: number, target: string): string | undefined =>
    memory.explain(at(page), target).targets[0]?.reason;
  t.is(explained(44, 'cpu'), 'mmap is off for the memory: processors of the guest trap');
  t.is(explained(48, 'other'), 'peer-to-peer is off for the memory');
  t.is(explained(56, 'other'), 'the memory is in the peer-to-peer domain "a", and it maps "default"');
});

test('a window that replaces one of another domain is unmapped from one target and mapped to the other', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const [a, b] = ['a', 'b'].map((name) => new RecordingTarget({ name }));
  if (a === undefined || b === undefined) throw new Error('two were made');
  for (const target of [a, b]) await memory.dmaMappers.addDmaMapper(target, { peerToPeerDomains: [target.name] });
  const [first, second] = ['a', 'b'].map((domain) =>
    memory.newDeviceMemory({ name: domain, length: PAGE, peerToPeerDomain: domain }),
  );
  if (first === undefined || second === undefined) throw new Error('two were made');
  for (const window of [first, second]) await window.addMapping({ backing: 'private' });
  await first.mapToGuest(at(8));
  t.deepEqual([heldWindows(a), heldWindows(b)], [['ram0', 'a'], ['ram0']]);
  await memory.change((change) => {
    change.unmapFromGuest(first);
    change.mapToGuest(second, at(8));
  });
  t.deepEqual([heldWindows(a), heldWindows(b)], [['ram0'], ['ram0', 'b']]);
});

test('a target of another domain does not keep a window from moving that it could not map', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ name: 'strict' });
  target.judge = ({ op }) => (op === 'map' ? new Error('refused') : undefined);
  await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required', peerToPeerDomains: ['own'] });
  const window = memory.newDeviceMemory({ name: 'other', length: PAGE });
  await window.addMapping({ backing: 'private' });
  await window.mapToGuest(at(4));
  t.deepEqual(target.calls, []);
});

test('RAM is mapped to a target without domains', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target, { peerToPeerDomains: [] });
  const region = await memory.regions.addRegion({ name: 'more', range: pages(4, 1) });
  await region.addMapping({ backing: 'private' });
  await region.mapToGuest();
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x5000 rw more']);
});

test('rejects invalid policies', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  for (const peerToPeerDomains of ['a', [''], [1], [undefined], {}] as never[]) {
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(target, { peerToPeerDomains }), 'ERR_INVALID_ARGUMENT');
  }
  for (const options of [{ mmap: 1 }, { peerToPeer: 'off' }, { peerToPeerDomain: '' }, { peerToPeerDomain: 7 }]) {
    const make = () => memory.newDeviceMemory({ name: 'w', length: PAGE, ...(options as DeviceAccessOptions) });
    throwsCode(t, make, 'ERR_INVALID_ARGUMENT');
  }
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ mapsForProcessors: true }));
  const second = new RecordingTarget({ mapsForProcessors: true });
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(second), 'ERR_INVALID_ARGUMENT');
});
