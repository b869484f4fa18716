// The lines that a journal writes. Recording never fails a change of guest memory.
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { channel } from 'node:diagnostics_channel';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AddressRange,
  type GuestMemory,
  type JournalLine,
  readJournal,
  recordJournal,
  type MemorySnapshot,
} from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';
import { scratchFolder } from '../support/scratch.ts';

function journalOf(t: ExecutionContext, memory: GuestMemory) {
  const file = join(scratchFolder(t), 'journal.jsonl');
  const journal = recordJournal(memory, file);
  t.teardown(() => journal.close());
  const entries = () => [...readJournal(readFileSync(file, 'utf8'))];
  return { file, journal, entries, texts: () => entries().map(({ text }) => text) };
}

test('writes a snapshot as the first line, and a line of JSON with time and text for each change', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE, private: true }] });
  const before = memory.inspect();
  const { file, entries, texts } = journalOf(t, memory);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  const backing = { file: taggedFile(t, 'bar-file', 2, 1), offset: 0n };
  await bar.addMapping({ range: AddressRange.of(0n, at(2)), backing });
  const target = new RecordingTarget({ name: 'A' });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  target.judge = new RefuseAt('map', 0, new Error('no room')).judge;
  await bar.mapToGuest(at(4));
  await bar.mapToGuest(at(8));
  await bar.unmapFromGuest();
  await handle.remove();
  t.deepEqual(texts(), [
    'Recording begins.',
    '"bar" is new.',
    'the memory in "bar" changes.',
    'A has joined, with one mapping.',
    '"bar" is at 0x4000..0x6000 now; A failed to map "bar" at 0x4000..0x6000 (ERR_MAP_FAILED).',
    '"bar" moves from 0x4000..0x6000 to 0x8000..0xa000.',
    '"bar" is no longer at 0x8000..0xa000.',
    'A has left, with one mapping.',
  ]);
  const [first, ...lines] = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line): JournalLine & { snapshot?: MemorySnapshot } => JSON.parse(line));
  t.deepEqual(first?.snapshot, before);
  for (const { time } of lines) t.regex(time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.deepEqual(
    lines.map(({ dma }) => dma ?? []),
    [[], [], ['map A 0x0..0x1000'], [], ['map A 0x8000..0xa000'], ['unmap A 0x8000..0xa000'], ['unmap A 0x0..0x1000']],
  );
  t.deepEqual(entries().at(-1)?.snapshot, memory.inspect());
});

test('records a failed change with its error, its operations and their rollback', async (t) => {
  const memory = await guest(t, { ram: [0, 2].map((page) => ({ start: at(page), length: PAGE, private: true })) });
  const target = new RecordingTarget({ name: 'A' });
  await memory.dmaMappers.addDmaMapper(target);
  const { entries } = journalOf(t, memory);
  const cover = await memory.regions.addRegion({ name: 'cover', range: pages(0, 4), priority: 200 });
  target.judge = new RefuseAt('unmap', 1).judge;
  await rejectsCode(t, cover.mapToGuest(), 'ERR_UNMAP_FAILED');
  const last = entries().at(-1);
  t.is(last?.error?.code, 'ERR_UNMAP_FAILED');
  t.regex(last?.text ?? '', /^a change has failed: ERR_UNMAP_FAILED: .*; A failed to unmap "ram1" at 0x2000..0x3000/);
  t.deepEqual(last?.dma, ['unmap A 0x0..0x1000', 'map A 0x0..0x1000']);
  t.deepEqual(last?.snapshot, memory.inspect());
  await memory.dmaMappers.targetClosed(target);
});

test('records only the changes of its own guest memory', async (t) => {
  const [memory, other] = [await guest(t), await guest(t)];
  const { texts } = journalOf(t, memory);
  await other.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'other target' }));
  const region = await other.regions.addRegion({ name: 'other', range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  await memory.regions.addRegion({ name: 'own', range: pages(0, 1) });
  t.deepEqual(texts(), ['Recording begins.', '"own" is new.']);
});

test.serial('recording ends on close(), and when guest memory is closed', async (t) => {
  const channels = ['dma.map', 'dma.unmap', 'memory.settled', 'pci.bar'].map((name) => channel(`peerdma:${name}`));
  const listening = () => channels.filter(({ hasSubscribers }) => hasSubscribers).length;
  const before = listening(); // listeners of other tests
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE, private: true }] });
  const one = journalOf(t, memory);
  {
    using two = recordJournal(memory, join(scratchFolder(t), 'two'));
    t.is(two.failure, undefined);
    t.is(listening(), 4);
  }
  one.journal.close();
  one.journal.close();
  await memory.regions.addRegion({ name: 'unseen', range: pages(0, 1) });
  t.deepEqual(one.texts(), ['Recording begins.']);
  const three = journalOf(t, memory);
  await memory.close();
  t.deepEqual(three.texts(), ['Recording begins.', 'guest memory is closed.']);
  t.deepEqual(three.entries().at(-1)?.snapshot.regions, []);
  t.is(three.journal.failure, undefined);
  t.is(listening(), before);
});

test('rejects closed guest memory, and creates no file', async (t) => {
  const memory = await guest(t);
  await memory.close();
  const file = join(scratchFolder(t), 'journal.jsonl');
  throwsCode(t, () => recordJournal(memory, file), 'ERR_CLOSED');
  t.throws(() => readFileSync(file), { code: 'ENOENT' });
});

test('rejects a file that cannot be written when recording begins', async (t) => {
  const memory = await guest(t);
  const folder = scratchFolder(t);
  const missing = throwsCode(t, () => recordJournal(memory, join(folder, 'no', 'journal')), 'ERR_SYSTEM');
  t.is(missing.errno, 'ENOENT');
  t.is(missing.syscall, 'open');
  const full = throwsCode(t, () => recordJournal(memory, '/dev/full'), 'ERR_SYSTEM');
  t.is(full.errno, 'ENOSPC');
  t.is(full.syscall, 'write');
  throwsCode(t, () => recordJournal(memory, undefined as unknown as string), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => recordJournal({} as GuestMemory, join(folder, 'journal')), 'ERR_INVALID_ARGUMENT');
});

test('ends recording when the file can no longer be written, and lets changes succeed', async (t) => {
  const memory = await guest(t);
  const pipe = join(scratchFolder(t), 'pipe');
  t.is(spawnSync('mkfifo', [pipe]).status, 0);
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
  const journal = recordJournal(memory, pipe);
  await memory.regions.addRegion({ name: 'one', range: pages(0, 1) });
  t.is(journal.failure, undefined);
  closeSync(reader);
  await memory.regions.addRegion({ name: 'two', range: pages(0, 1) });
  t.is(journal.failure?.code, 'ERR_SYSTEM');
  t.is(journal.failure?.errno, 'EPIPE');
  await memory.regions.addRegion({ name: 'three', range: pages(0, 1) });
  t.is(memory.inspect().regions.length, 3);
  journal.close();
});

test('reads the lines before a truncated last line', async (t) => {
  const memory = await guest(t);
  const { file, texts } = journalOf(t, memory);
  for (const name of ['one', 'two']) await memory.regions.addRegion({ name, range: pages(0, 1) });
  const whole = readFileSync(file, 'utf8');
  t.is(texts().length, 3);
  for (const left of [2, 3, 50]) t.is([...readJournal(whole.slice(0, -left))].length, 2, `${left} bytes are gone`);
});

test('rejects text that is not a journal, and names the wrong line and field', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE, private: true }] });
  const { file } = journalOf(t, memory);
  await memory.regions.addRegion({ name: 'one', range: pages(0, 1) });
  const [first = '', second = ''] = readFileSync(file, 'utf8').split('\n');
  const refused = (lines: readonly string[], what: RegExp): void => {
    const text = lines.map((line) => `${line}\n`).join('');
    t.regex(throwsCode(t, () => [...readJournal(text)], 'ERR_INVALID_ARGUMENT').message, what);
  };
  refused([], /^line 1 of the journal: expected JSON: /);
  refused([second], /^line 1 of the journal: journal: expected "peerdma", but it is missing$/);
  refused([first.replace('"version":1', '"version":2')], /^line 1 of the journal: version: expected 1, not 2$/);
  refused([first.slice(0, -5), second], /^line 1 of the journal: expected JSON: /);
  refused([first, second, '[]'], /^line 3 of the journal: expected an object, not a list$/);
  refused(
    [first, second.replace('"regions":[[1,0', '"regions":[[7,0')],
    /^line 2 of the journal: delta: a hunk ends at index 7 of a list of 1$/,
  );
  refused(
    [first, second.replace('"regions":[[1,0', '"regions":[[1,9')],
    /^line 2 of the journal: delta: a hunk ends at index 10 of a list of 1$/,
  );
  refused([first.replace('"start":"0x0"', '"start":"0x2000"')], /range whose end comes after its start/);
  refused([first.replace('"start":"0x0"', '"start":"-1"')], /: expected an address such as/);
  const values: readonly (readonly [name: string, value: string, expected: RegExp])[] = [
    ['addressWidth', '999999999', /snapshot\.addressWidth: expected a whole number from 12 to 46, not 999999999$/],
    ['addressWidth', '11', /from 12 to 46, not 11$/],
    ['addressWidth', '40.5', /from 12 to 46, not 40\.5$/],
    ['priority', '1e999', /regions\[0\]\.priority: expected a finite number, not Infinity$/],
    [
      'id',
      '9007199254740993',
      /regions\[0\]\.id: expected a whole number from 0 to 9007199254740991, not 9007199254740992$/,
    ],
    ['time', '"yesterday"', /time: expected a time such as "2026-.*", not "yesterday"$/],
    ['time', '"2026-13-29T12:00:00.000Z"', /time: expected a time such as .*, not "2026-13-29T12:00:00\.000Z"$/],
    ['time', JSON.stringify('x'.repeat(1e6)), /^line 1 of the journal: time: expected a time such as .{0,120}$/],
    ['kind', `${'['.repeat(1e4)}${']'.repeat(1e4)}`, /kind: expected "ram" or "device", not a list$/],
  ];
  for (const [name, value, expected] of values) {
    refused([first.replace(new RegExp(`"${name}":("[^"]*"|[^,]*)`), () => `"${name}":${value}`), second], expected);
  }
  t.is([...readJournal(`${first}\n${second.replace('{', '{"new in a later version":[1],')}\n`)].length, 2);
});
