// `peerdma view` and `peerdma explain` as programs: arguments, output, and errors for invalid files.
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type MemorySnapshot, readJournal } from '../../../ts/index.ts';
import { COMMANDS } from '../../../ts/cli/commands.ts';
import type { PageData } from '../../../ts/cli/view/data.ts';
import { at, guest } from '../../support/pages.ts';
import { RecordingTarget } from '../../support/recording-target.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { seedOf } from '../../support/seed.ts';
import { program } from '../support.ts';
import { movingBar, pageOf } from './support.ts';

async function snapshotOf(t: ExecutionContext): Promise<MemorySnapshot> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4), private: true }] });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  return memory.inspect();
}

/** Returns the data that is embedded in a page. */
function dataIn(html: string): PageData {
  const [, json = ''] = /<script id="data" type="application\/json">(.*?)<\/script>/s.exec(html) ?? [];
  return JSON.parse(json);
}

test('view writes a page beside the file, to the file of --output, or to standard output', async (t) => {
  const folder = scratchFolder(t);
  const file = join(folder, 'memory.json');
  const snapshot = await snapshotOf(t);
  writeFileSync(file, JSON.stringify(snapshot, null, 2));
  const beside = join(folder, 'memory.html');
  t.deepEqual(await program(['view', file]), {
    status: 0,
    stdout: `wrote ${beside}: open it in a browser\n`,
    stderr: '',
  });
  const html = readFileSync(beside, 'utf8');
  t.deepEqual(dataIn(html).snapshot, snapshot);
  t.is((await program(['view', file, '-o', '-'])).stdout, html);
  t.is((await program(['view', file, '--output', join(folder, 'other')])).status, 0);
  t.is(readFileSync(join(folder, 'other'), 'utf8'), html);
});

test('view and explain reject malformed command lines with the reason', async (t) => {
  for (const args of [
    ['view'],
    ['view', 'a', 'b'],
    ['view', 'a', '--wrong'],
    ['explain', 'a'],
    ['explain', 'a', 'B'],
    ['view', ''],
    ['explain', '', '0x1'],
  ]) {
    const { status, stderr } = await program(args);
    t.is(status, 2, args.join(' '));
    t.regex(stderr, /Run peerdma \w+ --help for its usage\./);
  }
  const { status, stderr } = await program(['view', 'page.html', '--output', 'page.html']);
  t.is(status, 2);
  t.regex(stderr, /--output would overwrite page\.html/);
  const { stdout } = await program(['--help']);
  for (const name of Object.keys(COMMANDS)) t.regex(stdout, new RegExp(`^  ${name} +\\w`, 'm'));
});

test('view rejects an --output that names its input, by any path or link', async (t) => {
  const folder = scratchFolder(t);
  const inside = (name: string): string => join(folder, name);
  const text = JSON.stringify(await snapshotOf(t));
  writeFileSync(inside('memory.json'), text);
  mkdirSync(inside('folder'));
  symlinkSync(folder, inside('folder/link'));
  symlinkSync('memory.json', inside('symbolic.html'));
  symlinkSync('symbolic.html', inside('twice.html'));
  linkSync(inside('memory.json'), inside('hard.html'));
  for (const name of ['symbolic.html', 'twice.html', 'hard.html', 'folder/../memory.json', 'folder/link/memory.json']) {
    for (const [input, output] of [
      ['memory.json', name],
      [name, 'memory.json'],
    ] as const) {
      const { status, stderr } = await program(['view', inside(input), '--output', inside(output)]);
      t.is(status, 2, name);
      t.regex(stderr, /--output would overwrite .*: name another --output/);
    }
  }
  symlinkSync('memory.json', inside('other'));
  symlinkSync('other', inside('default.json'));
  symlinkSync('memory.json', inside('default.html'));
  t.is((await program(['view', inside('default.json')])).status, 2, 'the default output');
  const main = fileURLToPath(new URL('../../../ts/cli/main.ts', import.meta.url));
  const args = [...process.execArgv, main, 'view', '-', '--output', inside('hard.html')];
  const input = openSync(inside('memory.json'), 'r');
  t.teardown(() => closeSync(input));
  const { status, stderr } = spawnSync(process.execPath, args, { stdio: [input, 'pipe', 'pipe'], encoding: 'utf8' });
  t.is(status, 2, stderr);
  t.is(readFileSync(inside('memory.json'), 'utf8'), text);
});

test('view writes to a new file, also through a link, and to a device', async (t) => {
  const folder = scratchFolder(t);
  const file = join(folder, 'memory.json');
  writeFileSync(file, JSON.stringify(await snapshotOf(t)));
  symlinkSync('page.html', join(folder, 'link.html'));
  t.is((await program(['view', file, '--output', join(folder, 'link.html')])).status, 0);
  t.regex(readFileSync(join(folder, 'page.html'), 'utf8'), /^<!doctype html>/i);
  t.is((await program(['view', file, '--output', '/dev/null'])).status, 0);
});

test('view reports files that cannot be read or written', async (t) => {
  const folder = scratchFolder(t);
  const missing = await program(['view', join(folder, 'none')]);
  t.is(missing.status, 1);
  t.regex(missing.stderr, /ERR_SYSTEM: .*: read failed: ENOENT/);
  const file = join(folder, 'memory.json');
  writeFileSync(file, JSON.stringify(await snapshotOf(t)));
  const nowhere = await program(['view', file, '--output', join(folder, 'no', 'page')]);
  t.is(nowhere.status, 1);
  t.regex(nowhere.stderr, /ERR_SYSTEM: .*: write failed: ENOENT/);
});

test('view and explain read files with a byte order mark, and journals without their last line end', async (t) => {
  const folder = scratchFolder(t);
  const snapshot = join(folder, 'memory.json');
  writeFileSync(snapshot, JSON.stringify(await snapshotOf(t)));
  for (const [file, address] of [
    [snapshot, '0x1000'],
    [await movingBar(t), '0xfee00000'],
  ] as const) {
    const expected = await program(['explain', file, address]);
    const page = await program(['view', file, '--output', '-']);
    t.deepEqual([expected.status, page.status], [0, 0]);
    const text = readFileSync(file, 'utf8');
    for (const same of [`\ufeff${text}`, text.trimEnd(), `${text}\n\n`]) {
      writeFileSync(file, same);
      t.deepEqual(await program(['explain', file, address]), expected);
      t.deepEqual(dataIn((await program(['view', file, '--output', '-'])).stdout), dataIn(page.stdout));
    }
  }
});

test('explain explains a snapshot, and the last state of a journal', async (t) => {
  const file = join(scratchFolder(t), 'memory.json');
  writeFileSync(file, JSON.stringify(await snapshotOf(t)));
  const { stdout, status } = await program(['explain', file, '0x1000', 'A']);
  t.is(status, 0);
  t.is(
    stdout,
    '0x1000 is offset 0x1000 of "ram0" (ram, priority 100), which shows private memory, writable. A reaches it: it has mapped 0x0..0x4000.\n',
  );
  const json = await program(['explain', file, '0x1000', '--json']);
  t.is(JSON.parse(json.stdout).targets[0].state, 'mapped');
  const unknown = await program(['explain', file, '0x1000', 'B']);
  t.is(unknown.status, 1);
  t.regex(unknown.stderr, /there is no target B/);
  const journal = await program(['explain', await movingBar(t), '0xfee00000', 'device A']);
  t.regex(journal.stdout, /device A does not reach it: it could not map .*ERR_IOVA_UNREACHABLE, EINVAL/);
});

test('view puts the last lines of a journal into the page, and reports how many it leaves out', async (t) => {
  const file = await movingBar(t);
  const states = [...readJournal(readFileSync(file, 'utf8'))];
  const { length } = states;
  t.true(length > 5);
  const page = `${file}.html`;
  for (const last of [1, 2, length - 2]) {
    const { status, stderr } = await program(['view', file, '--output', page, '--last', String(last)]);
    t.is(status, 0);
    const leftOut = length - 1 - last;
    t.is(
      stderr,
      `moves.jsonl: the page leaves out the first ${leftOut} of ${length} lines. Use --last ${length} for all lines.\n`,
    );
    const html = readFileSync(page, 'utf8');
    t.regex(html, new RegExp(`the first ${leftOut} lines of the journal`, 'i'));
    const { snapshot, history } = dataIn(html);
    t.deepEqual(snapshot, states[leftOut]?.snapshot);
    t.is(history?.time, states[leftOut]?.time);
    t.deepEqual(
      history?.lines.map(({ text }) => text),
      states.slice(leftOut + 1).map(({ text }) => text),
    );
  }
  for (const last of [length - 1, length, 10 * length]) {
    const { stderr } = await program(['view', file, '--output', page, '--last', String(last)]);
    t.is(stderr, '');
    t.is(dataIn(readFileSync(page, 'utf8')).history?.lines.length, length - 1);
  }
  for (const wrong of ['0', '-1', '1.5', 'x', ''])
    t.is((await program(['view', file, `--last=${wrong}`])).status, 2, wrong);
});

test('rejects a file that is neither a snapshot nor a journal, with the reason', async (t) => {
  const folder = scratchFolder(t);
  const file = join(folder, 'memory.json');
  const good = JSON.stringify(await snapshotOf(t));
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['', /the snapshot: expected JSON: /],
    [good.slice(0, -1), /the snapshot: expected JSON: /],
    [good.slice(0, 200), /the snapshot: expected JSON: /],
    ['null', /the snapshot: expected an object, not null/],
    ['[]', /the snapshot: expected an object, not a list/],
    ['{}', /the snapshot\.addressWidth: expected a whole number from 12 to 46, but it is missing/],
    [good.replace('"flat":[', '"flat":[7,'), /the snapshot\.flat\[0\]: expected an object, not 7/],
    [
      good.replace('"0x0"', '"<img>"'),
      /the snapshot\.regions\[0\]\.range\.start: expected an address such as .*, not "<img>"/,
    ],
    [
      good.replace('"end":"0x4000"', '"end":"0x0"'),
      /expected a range whose end comes after its start, not "0x0\.\.0x0"/,
    ],
    [good.replace('"end":"0x4000"', '"end":"0x100000000000000001"'), /expected an address/],
    [good.replace('"kind":"ram"', '"kind":"rom"'), /expected "ram" or "device", not "rom"/],
    [
      good.replace('"priority":100', '"priority":"high"'),
      /regions\[0\]\.priority: expected a finite number, not "high"/,
    ],
    [good.replace('"state":"mapped"', '"state":{"toString":1}'), /state: expected "mapped" or .*, not an object/],
    [
      good.replace('"name":"A"', `"name":${'['.repeat(2000)}${']'.repeat(2000)}`),
      /targets\[0\]\.name: expected a string, not a list/,
    ],
    [
      `{"journal":"peerdma","version":1}\n`,
      /line 1 of the journal: time: expected a time such as .*, but it is missing/,
    ],
  ];
  for (const [text, what] of wrong) {
    writeFileSync(file, text);
    for (const args of [
      ['view', file],
      ['explain', file, '0x0'],
    ]) {
      const { status, stdout, stderr } = await program(args);
      t.is(status, 1, text.slice(0, 80));
      t.is(stdout, '');
      t.regex(stderr, /ERR_INVALID_ARGUMENT/);
      t.regex(stderr, what);
    }
    t.false(existsSync(join(folder, 'memory.html')));
  }
});

test('drops unknown fields, __proto__ included', async (t) => {
  const snapshot = await snapshotOf(t);
  const more = JSON.stringify(snapshot)
    .replaceAll('{', '{"__proto__":{"name":"evil"},"constructor":1,"later":[{"<b>":2}],')
    .replace('"0x0"', '"0x000"');
  const html = readFileSync(await pageOf(t, more), 'utf8');
  t.deepEqual(dataIn(html).snapshot, snapshot);
  t.false(html.includes('evil'));
});

test('no name ends the script, or begins an element or a comment', async (t) => {
  const seed = seedOf(t);
  const snapshot = await snapshotOf(t);
  const [region] = snapshot.regions;
  const pieces = [
    '</script>',
    '<!--',
    '<script>',
    ']]>',
    '\u2028',
    '"',
    "'",
    '\\',
    '&lt;',
    '\u0000',
    '<',
    '>',
    'a',
    '\ud800',
  ];
  const name = fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 8 }).map((all) => all.join(''));
  const plain = readFileSync(await pageOf(t, JSON.stringify(snapshot)), 'utf8');
  const tags = (html: string): number => html.match(/<[!/a-z]/gi)?.length ?? 0;
  await fc.assert(
    fc.asyncProperty(name, async (hostile) => {
      const given = { ...snapshot, regions: [{ ...region, name: hostile }] };
      const text = JSON.stringify(given);
      const html = readFileSync(await pageOf(t, text, 'memory.json'), 'utf8');
      if (tags(html) !== tags(plain)) throw new Error('there are other elements than without it');
      if (dataIn(html).snapshot.regions[0]?.name !== JSON.parse(text).regions[0].name)
        throw new Error('the name is another');
    }),
    { seed, numRuns: 60 },
  );
  t.pass();
});

test('displays the name of the file unchanged', async (t) => {
  const html = readFileSync(await pageOf(t, JSON.stringify(await snapshotOf(t)), '<img src=x>&"\'.json'), 'utf8');
  t.true(html.includes('<title>&lt;img src=x&gt;&amp;&quot;&#39;.json · peerdma</title>'));
  t.false(html.includes('<img'));
});

test('the page sends no requests: it has no URL, and a policy that forbids them', async (t) => {
  const html = readFileSync(await pageOf(t, JSON.stringify(await snapshotOf(t))), 'utf8');
  t.deepEqual(html.match(/\b(?:https?:)?\/\/[a-z]/gi) ?? [], []);
  t.deepEqual(html.match(/\b(?:src|href)=(?!"data:,")/g) ?? [], []);
  t.deepEqual(html.match(/@import|url\(/g) ?? [], []);
  t.regex(html, /<meta http-equiv="Content-Security-Policy" content="default-src 'none';/);
});
