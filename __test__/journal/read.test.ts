// Reads journals line by line, from text or from a stream in pieces of any size, with one state in memory.
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MemorySnapshot } from '../../ts/index.ts';
import { type JournalEntry, readJournal, recordJournal } from '../../ts/inspect.ts';
import { JournalReader } from '../../ts/journal/read.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { guest, pages } from '../support/pages.ts';
import { scratchFolder } from '../support/scratch.ts';

/** A field that each line has. */
const TIME = '"time":"2026-11-29T12:00:00.000Z"';

async function collected(entries: AsyncIterable<JournalEntry>): Promise<JournalEntry[]> {
  const all: JournalEntry[] = [];
  for await (const entry of entries) all.push(entry);
  return all;
}

async function* inPieces(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.slice(at, at + length);
}

test('reads the same entries from a stream in pieces of any size as from the text', async (t) => {
  const memory = await guest(t);
  const file = join(scratchFolder(t), 'journal');
  {
    using journal = recordJournal(memory, file);
    for (const name of ['ä', '€uro', '𝄞']) await memory.regions.addRegion({ name, range: pages(0, 1) });
    t.is(journal.failure, undefined);
  }
  const bytes = readFileSync(file);
  const entries = [...readJournal(bytes.toString('utf8'))];
  t.is(entries.length, 4);
  t.deepEqual(entries.at(-1)?.snapshot, memory.inspect());
  t.deepEqual(await collected(readJournal(createReadStream(file))), entries);
  t.deepEqual(await collected(readJournal(createReadStream(file, 'utf8'))), entries);
  for (const length of [1, 2, 3, 7, 64, bytes.length]) {
    t.deepEqual(await collected(readJournal(inPieces(bytes, length))), entries, `pieces of ${length} bytes`);
  }
  const cut = bytes.subarray(0, -2);
  t.deepEqual(await collected(readJournal(inPieces(cut, 5))), entries.slice(0, -1), 'the last line is cut');
});

test('reads a last line without a line end, and skips blank lines at the end', async (t) => {
  const memory = await guest(t);
  const file = join(scratchFolder(t), 'journal');
  {
    using _journal = recordJournal(memory, file);
    for (const name of ['a', 'b']) await memory.regions.addRegion({ name, range: pages(0, 1) });
  }
  const text = readFileSync(file, 'utf8');
  const entries = [...readJournal(text)];
  t.is(entries.length, 3);
  const start = text.slice(0, text.indexOf('\n'));
  const windows = text.replaceAll('\n', '\r\n');
  for (const same of [text.trimEnd(), `${text}\n`, `${text}\r\n \n\n`, `${text}  `, windows, windows.trimEnd()]) {
    t.deepEqual([...readJournal(same)], entries, JSON.stringify(same.slice(-12)));
    t.deepEqual(await collected(readJournal(inPieces(Buffer.from(same), 9))), entries);
  }
  t.is([...readJournal(start)].length, 1, 'a journal of its first line');
  const wrong = throwsCode(t, () => [...readJournal(`${text}{${TIME}}`)], 'ERR_INVALID_ARGUMENT');
  t.regex(wrong.message, /^line 4 of the journal: text: expected a string/);
  const between = throwsCode(t, () => [...readJournal(text.replace('\n', '\n\n'))], 'ERR_INVALID_ARGUMENT');
  t.regex(between.message, /^line 2 of the journal: expected JSON/);
  for (const blank of ['\n', ' \n\n', '\ufeff']) {
    t.regex(throwsCode(t, () => [...readJournal(blank)], 'ERR_INVALID_ARGUMENT').message, /^line 1 of the journal/);
  }
});

test('skips a byte order mark before the first line only', async (t) => {
  const memory = await guest(t);
  const file = join(scratchFolder(t), 'journal');
  {
    using _journal = recordJournal(memory, file);
    await memory.regions.addRegion({ name: 'a', range: pages(0, 1) });
  }
  const text = readFileSync(file, 'utf8');
  const entries = [...readJournal(text)];
  const marked = `\ufeff${text}`;
  t.deepEqual([...readJournal(marked)], entries);
  writeFileSync(file, marked);
  t.deepEqual(await collected(readJournal(createReadStream(file))), entries);
  t.deepEqual(await collected(readJournal(createReadStream(file, 'utf8'))), entries);
  t.deepEqual(await collected(readJournal(inPieces(Buffer.from(marked), 1))), entries);
  const error = throwsCode(t, () => [...readJournal(text.replace('\n', '\n\ufeff'))], 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /^line 2 of the journal: expected JSON/);
});

test('reads entries lazily: an invalid line throws after the entries before it', async (t) => {
  const memory = await guest(t);
  const file = join(scratchFolder(t), 'journal');
  recordJournal(memory, file).close();
  const text = `${readFileSync(file, 'utf8')}{${TIME},"text":"good"}\n{${TIME}}\n{${TIME},"text":"beyond"}\n`;
  const entries = readJournal(text);
  t.is(entries.next().value?.text, 'Recording begins.');
  t.is(entries.next().value?.text, 'good');
  t.regex(
    throwsCode(t, () => entries.next(), 'ERR_INVALID_ARGUMENT').message,
    /^line 3 of the journal: text: expected a string/,
  );
  const stream = readJournal(inPieces(Buffer.from(text), 10));
  t.is((await stream.next()).value?.text, 'Recording begins.');
  t.is((await stream.next()).value?.text, 'good');
  const error = await t.throwsAsync(stream.next());
  t.regex(error?.message ?? '', /^line 3 of the journal/);
});

test('rejects a line that exceeds the string limit before it joins the pieces, and names its number', async (t) => {
  const memory = await guest(t);
  const file = join(scratchFolder(t), 'journal');
  {
    using _journal = recordJournal(memory, file);
    await memory.regions.addRegion({ name: 'x'.repeat(1000), range: pages(0, 1) });
  }
  const text = readFileSync(file, 'utf8');
  const [start = ''] = text.split('\n');
  const pieces = text.match(/[^]{1,100}/g) ?? [];
  const reading = (limit: number) => (): number => {
    const reader = new JournalReader(limit);
    return pieces.reduce((count, piece) => count + [...reader.add(piece)].length, 0);
  };
  t.is(reading(text.length)(), 2);
  const error = throwsCode(t, reading(start.length), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /^line 2 of the journal: expected at most \d+ characters/);
  const unfinished = new JournalReader(50);
  throwsCode(t, () => [...unfinished.add('x'.repeat(40)), ...unfinished.add('x'.repeat(40))], 'ERR_INVALID_ARGUMENT');
});

test('rejects an empty stream, and a stream that is not a journal', async (t) => {
  for (const length of [0, 5]) {
    const error = await t.throwsAsync(collected(readJournal(inPieces(Buffer.alloc(length, 'x'), 2))));
    t.regex(error?.message ?? '', /^line 1 of the journal: expected JSON/);
  }
  for (const wrong of [undefined, null, 7, {}, ['a']]) {
    throwsCode(t, () => readJournal(wrong as unknown as string), 'ERR_INVALID_ARGUMENT');
  }
});

/** A journal of many moves beside many mappings: all its states together have millions of entries. */
async function longJournal(mappings: number, lines: number): Promise<string> {
  const flat = Array.from({ length: mappings }, (_, index) => ({
    start: `0x${(index * 8192).toString(16)}`,
    end: `0x${(index * 8192 + 4096).toString(16)}`,
    region: 'r',
    kind: 'device' as const,
    writable: true,
    backing: 'private',
  }));
  const snapshot: MemorySnapshot = { addressWidth: 44, regions: [], flat, targets: [], quarantine: [] };
  const start = { journal: 'peerdma', version: 1, time: '2026-01-01T00:00:00.000Z', snapshot };
  const move = { time: '2026-01-01T00:00:00.000Z', text: 'a move', delta: { flat: [[0, 1, [flat[0]]]] } };
  return `${JSON.stringify(start)}\n${`${JSON.stringify(move)}\n`.repeat(lines)}`;
}

/** A program for a small heap. Reads a file as a stream and as text, and runs `peerdma explain` and `peerdma view`. */
const READ = `
import { createReadStream, readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
const at = (path) => import(new URL(path, process.argv[1]).href);
const { readJournal } = await at('ts/inspect.ts');
const { runProgram } = await at('ts/cli/run.ts');
const { COMMANDS } = await at('ts/cli/commands.ts');
const [, , file] = process.argv;
let count = 0;
for await (const { snapshot } of readJournal(createReadStream(file))) count += snapshot.flat.length;
for (const { snapshot } of readJournal(readFileSync(file, 'utf8'))) count += snapshot.flat.length;
console.log(count);
process.exitCode = await runProgram(['explain', file, '0x0'], COMMANDS, process);
process.exitCode ||= await runProgram(['view', file], COMMANDS, process);
`;

test('reads, explains and displays a long journal in the memory of one of its states', async (t) => {
  const [mappings, lines] = [4000, 6000];
  const file = join(scratchFolder(t), 'journal.jsonl');
  writeFileSync(file, await longJournal(mappings, lines));
  const top = new URL('../../', import.meta.url);
  const options = [
    '--max-old-space-size=112',
    '--import=./scripts/typescript/register.mjs',
    '--input-type=module',
    '-e',
    READ,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...options, top.href, file], {
    encoding: 'utf8',
    cwd: fileURLToPath(top),
  });
  t.is(status, 0, stderr.slice(0, 2000));
  const [count, sentence, page] = stdout.split('\n');
  t.is(count, String(2 * mappings * (lines + 1)));
  t.regex(sentence ?? '', /^Nothing is at 0x0/);
  t.regex(page ?? '', /wrote \S+journal\.html: /);
});

test('rejects a line that exceeds the string limit in a single buffer', async (t) => {
  async function* stream(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(2 ** 29);
  }
  const error = await rejectsCode(t, collected(readJournal(stream())), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /^line 1 of the journal: expected at most \d+ characters/);
});
