// Several regions and windows changed as one.
import test, { type ExecutionContext } from 'ava';
import { readdirSync, readlinkSync } from 'node:fs';
import { AddressRange, type GuestMemory, type MemoryChange, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { PAGE, at, guest, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

/** Two windows of a page each, mapped at pages 8 and 9, and a target that records its calls. */
async function scene(t: ExecutionContext) {
  const memory = await guest(t);
  const window = async (name: string, firstTag: number, page: number) => {
    const bar = memory.newDeviceMemory({ name, length: PAGE });
    await bar.addMapping({ backing: { file: taggedFile(t, name, 1, firstTag), offset: 0n } });
    await bar.mapToGuest(at(page));
    return bar;
  };
  const a = await window('a', 0x10, 8);
  const b = await window('b', 0x20, 9);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  const log: string[] = [];
  target.judge = ({ op, range }) => void log.push(`${op} ${range}`);
  return { memory, a, b, target, log };
}

const byteAt = (memory: GuestMemory, page: number): number | undefined => memory.read(at(page), 1)[0];

test('two windows swap their addresses in one change', async (t) => {
  const { memory, a, b, log } = await scene(t);
  await memory.change((change) => {
    change.mapToGuest(a, at(9));
    change.mapToGuest(b, at(8));
  });
  t.is(byteAt(memory, 8), 0x20);
  t.is(byteAt(memory, 9), 0x10);
  t.deepEqual(log, ['unmap 0x8000..0x9000', 'unmap 0x9000..0xa000', 'map 0x8000..0x9000', 'map 0x9000..0xa000']);
});

test('nothing of a change applies if a target fails to map a part of it', async (t) => {
  const { memory, a, b, target } = await scene(t);
  const before = memory.inspect();
  target.judge = ({ op, range }) => (op === 'map' && range.start === at(11) ? new Error('no room') : undefined);
  await rejectsCode(
    t,
    memory.change((change) => {
      change.mapToGuest(a, at(10));
      change.unmapFromGuest(b);
      change.mapToGuest(b, at(11));
    }),
    'ERR_MAP_FAILED',
  );
  t.deepEqual(memory.inspect(), before);
});

test('the edits of a change apply in their order', async (t) => {
  const { memory, a } = await scene(t);
  const file = taggedFile(t, 'other', 1, 0x55);
  await memory.change((change) => {
    change.removeMappings(a, AddressRange.of(0n, PAGE));
    change.addMapping(a, { backing: { file, offset: 0n } });
    change.unmapFromGuest(a);
    change.mapToGuest(a, at(12));
  });
  t.is(byteAt(memory, 12), 0x55);
  throwsCode(t, () => memory.read(at(8), 1), 'ERR_NOT_MAPPED');
});

test('a change maps and removes regions with windows', async (t) => {
  const { memory, a } = await scene(t);
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(14, 1) });
  await rom.addMapping({ backing: { file: taggedFile(t, 'rom', 1, 0x70), offset: 0n } });
  await memory.change((change) => {
    change.mapToGuest(rom, { writable: false });
    change.remove(a);
  });
  t.is(byteAt(memory, 14), 0x70);
  t.false(memory.inspect().flat.find(({ region }) => region === 'rom')?.writable);
  await rejectsCode(t, a.mapToGuest(at(8)), 'ERR_REGION_REMOVED');
});

test('an edit with a bad argument, and one that throws, leave the memory map as it was', async (t) => {
  const { memory, a, b } = await scene(t);
  const before = memory.inspect();
  const own = new Error('mine');
  const fails: [(change: MemoryChange) => void, string | undefined][] = [
    [(change) => change.mapToGuest(b, 1n), 'ERR_UNALIGNED'],
    [(change) => change.mapToGuest(b, -1n), 'ERR_INVALID_ARGUMENT'],
    [(change) => change.addMapping(b, { range: AddressRange.of(PAGE, PAGE), backing: 'private' }), 'ERR_OUT_OF_RANGE'],
    [(change) => change.unmapFromGuest({} as typeof b), 'ERR_INVALID_ARGUMENT'],
  ];
  for (const [edit, code] of fails) {
    const failing = memory.change((change) => {
      change.mapToGuest(a, at(10));
      edit(change);
    });
    await rejectsCode(t, failing, code as 'ERR_UNALIGNED');
  }
  const thrown = await t.throwsAsync(
    memory.change((change) => {
      change.mapToGuest(a, at(10));
      throw own;
    }),
  );
  t.is(thrown, own);
  t.deepEqual(memory.inspect(), before);
});

test('a change that fails releases the files that its edits hold', async (t) => {
  const { memory, a } = await scene(t);
  const name = 'released-by-a-failed-change';
  using file = MemoryFile.create(PAGE, { name });
  await rejectsCode(
    t,
    memory.change((change) => {
      change.addMapping(a, { backing: { file, offset: 0n } });
      change.mapToGuest(a, 1n);
    }),
    'ERR_UNALIGNED',
  );
  let kept: MemoryChange | undefined;
  await memory.change((change) => void (kept = change));
  throwsCode(t, () => kept?.addMapping(a, { backing: { file, offset: 0n } }), 'ERR_INVALID_ARGUMENT');
  t.is(openFilesNamed(name), 1, 'that of the test');
  file.close();
  t.is(openFilesNamed(name), 0);
});

function openFilesNamed(name: string): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // that of the directory, closed by now
    }
  });
  return links.filter((link) => link.includes(name)).length;
}

test('rejects a function that returns a promise, and edits after the change', async (t) => {
  const { memory, a } = await scene(t);
  const before = memory.inspect();
  const edit = async (change: MemoryChange): Promise<void> => {
    change.mapToGuest(a, at(10));
    await Promise.resolve();
    throw new Error('late');
  };
  const error = await rejectsCode(t, memory.change(edit), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /not a promise/);
  // oxlint-disable-next-line unicorn/no-thenable -- a promise of another library
  const thenable = () => ({ then: () => {} }) as never;
  await rejectsCode(t, memory.change(thenable), 'ERR_INVALID_ARGUMENT');
  let kept: MemoryChange | undefined;
  await memory.change((change) => void (kept = change));
  throwsCode(t, () => kept?.mapToGuest(a, at(10)), 'ERR_INVALID_ARGUMENT');
  t.deepEqual(memory.inspect(), before);
});

test('rejects a region of another guest memory', async (t) => {
  const { memory, a } = await scene(t);
  const other = await guest(t);
  const error = await rejectsCode(
    t,
    other.change((change) => change.mapToGuest(a, at(10))),
    'ERR_INVALID_ARGUMENT',
  );
  t.regex(error.message, /another guest memory/);
  t.is(byteAt(memory, 8), 0x10);
});

test('a target that joins while a change is queued maps its result', async (t) => {
  const { memory, a, b } = await scene(t);
  const swapped = memory.change((change) => {
    change.mapToGuest(a, at(9));
    change.mapToGuest(b, at(8));
  });
  const late = new SimulatedIommu({ name: 'late' });
  await Promise.all([swapped, memory.dmaMappers.addDmaMapper(late)]);
  t.is(late.read(at(8), 1)[0], 0x20);
});
