/**
 * Every command escapes text from files, /sys and the command line before it reaches the terminal.
 */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import { COMMANDS } from '../../ts/cli/commands.ts';
import { bindCommand, unbindCommand } from '../../ts/cli/bind/command.ts';
import { Output } from '../../ts/cli/output.ts';
import type { Commands } from '../../ts/cli/run.ts';
import { GuestMemory } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rootsOf } from '../host/use/support.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { scratchFolder } from '../support/scratch.ts';
import { entryOf, Kept, program, type Outcome } from './support.ts';

/** Control sequences in 7 and 8 bits: set the title, clear the screen, forge a line, reverse the text. */
const EVIL = 'e\u001b]0;owned\u0007\u001b[2J\u009b2J\r\nok\t\u007f\u202e\u2028';
/** Control characters, except the line ends of the program itself. */
// eslint-disable-next-line no-control-regex
const OBEYED = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;

function isPlain(t: ExecutionContext, { stdout, stderr }: Outcome, what: string): void {
  t.is(OBEYED.exec(stdout + stderr)?.[0], undefined, `${what}: ${JSON.stringify(stdout + stderr).slice(0, 400)}`);
  t.notRegex(stdout + stderr, /^ok/m, `${what}: a line is forged`);
}

const MACHINE = `
host 0000:00 iommu=dmar0
  04.0 8086:1572 endpoint class=020000 group=1 driver=nic bar0=mem64:1M@0xfe000000
  05.0 8086:1572 endpoint class=020000 group=2 driver=vfio-pci bar0=mem64:1M@0xfe100000
`;

/** A /sys with hostile names of a driver, an IOMMU and a folder, and hostile file contents. */
function hostileSys(t: ExecutionContext): string {
  const root = expandTree(t, describeMachine(MACHINE));
  const device = join(root, 'devices/pci0000:00/0000:00:04.0');
  for (const [name, target] of Object.entries({ driver: `drivers/${EVIL}`, iommu: `iommu/${EVIL}` })) {
    rmSync(join(device, name));
    symlinkSync(target, join(device, name));
  }
  for (const folder of ['bus/pci/devices', 'class/iommu']) mkdirSync(join(root, folder, EVIL), { recursive: true });
  writeFileSync(join(device, 'class'), EVIL);
  return root;
}

test('no command prints control characters of /sys', async (t) => {
  const root = hostileSys(t);
  for (const args of [
    ['topology', '--sysfs', root],
    ['topology', '--sysfs', root, '--all', '00:04.0', '00:05.0'],
    ['topology', '--sysfs', root, '--json'],
    ['topology', '--sysfs', root, '--svg', '-'],
    ['topology', '--sysfs', root, '--html', '-'],
    ['doctor', '--sysfs', root],
    ['doctor', '--sysfs', root, '00:04.0', '00:05.0'],
    ['doctor', '--sysfs', root, '--json'],
  ]) {
    const outcome = await program(args);
    isPlain(t, outcome, args.slice(3).join(' '));
    t.true(outcome.stdout.includes('owned'), args.join(' '));
  }
});

test('no command prints control characters of a snapshot', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: `A${EVIL}` }));
  const window = memory.newDeviceMemory({ name: EVIL, length: 4096n });
  await window.mapToGuest(0xe000_0000n);
  const file = join(scratchFolder(t), `${EVIL.replaceAll('/', '')}.json`);
  writeFileSync(file, JSON.stringify(memory.inspect()));
  for (const args of [
    ['explain', file, '0xe0000000'],
    ['explain', file, '0xe0000000', '--json'],
    ['explain', file, '0xe0000000', 'B'],
    ['explain', file, '0xe0000000', `A${EVIL}`],
    ['view', file],
  ]) {
    const outcome = await program(args);
    isPlain(t, outcome, args.join(' '));
    t.true((outcome.stdout + outcome.stderr).includes('owned'), args.join(' '));
  }
  const { stdout: page } = await program(['view', file, '--output', '-']);
  isPlain(t, { status: 0, stdout: page.replaceAll('\t', ''), stderr: '' }, 'a page, which is indented by tabs');
  const json = await program(['explain', file, '0xe0000000', '--json']);
  t.true(JSON.parse(json.stdout).regions[0].name.includes('\u009b'), 'JSON has the name as it is');
});

test('bind and unbind print no control characters of /sys', async (t) => {
  const rest = '[sys/bus/pci]\ndrivers_probe =\n[sys/bus/pci/drivers/vfio-pci]\nunbind =\nbind =\n';
  const driver = 'e\u001b[31m\u009b2J';
  const roots = rootsOf(t, { pci: MACHINE.replace('driver=nic', `driver=${driver}`), rest });
  const commands: Commands = { bind: entryOf(bindCommand(() => roots)), unbind: entryOf(unbindCommand(() => roots)) };
  for (const args of [
    ['bind', '--dry-run', '00:04.0', '00:05.0'],
    ['bind', '--dry-run', '--json', '00:04.0'],
    ['bind', '00:04.0'],
    ['unbind', '00:04.0'],
  ]) {
    isPlain(t, await program(args, false, commands), args.join(' '));
  }
});

test('no command prints control characters of the command line', async (t) => {
  for (const args of [
    [EVIL],
    ['help', EVIL],
    ...Object.keys(COMMANDS).flatMap((name) => [
      [name, EVIL],
      [name, EVIL, EVIL],
      [name, `--${EVIL}`],
      [name, '--sysfs', EVIL],
      [name, '--output', EVIL, EVIL],
      [name, '--driver', EVIL, '01:00.0'],
    ]),
  ]) {
    const outcome = await program(args);
    isPlain(t, outcome, JSON.stringify(args));
    t.not(outcome.status, 0);
  }
});

test('on a terminal prints the colours of the program, and none from names', async (t) => {
  const before = { ...process.env };
  t.teardown(() => Object.assign(process.env, before));
  for (const name of ['NO_COLOR', 'NODE_DISABLE_COLORS', 'FORCE_COLOR']) delete process.env[name];
  const stream = Object.assign(new Kept(), { isTTY: true });
  const output = new Output(stream);
  output.line(`${output.paint('red', 'blocked')} \u001b[32mok\u001b[39m ${output.paint('dim', 'a\u001b[1mb')}`);
  output.lines(['two\nlines', '']);
  t.is(await output.finish(), undefined);
  t.is(stream.text, '\u001b[31mblocked\u001b[39m ?[32mok?[39m \u001b[2ma?[1mb\u001b[22m\ntwo?lines\n\n');
  const coloured = await program(['topology', '--sysfs', hostileSys(t)], true);
  t.true(coloured.stdout.includes('\u001b[1m'));
  // eslint-disable-next-line no-control-regex
  t.is(OBEYED.exec(coloured.stdout.replaceAll(/\u001b\[(?:[12]|22|3[1-69])m/g, '')), null);
});

test('JSON of a lazy iterable waits for a slow reader', async (t) => {
  const waiting: (() => void)[] = [];
  const stream = new Writable({ write: (_, __, done) => void waiting.push(done) });
  let made = 0;
  const value = {
    *[Symbol.iterator]() {
      for (; made < 100; made++) yield 'x'.repeat(100_000);
    },
  };
  const output = new Output(stream);
  let isWritten = false;
  const written = output.json(value).then(() => (isWritten = true));
  for (let begun = 1; !isWritten; begun++) {
    await new Promise(setImmediate);
    t.true(made <= 11 * begun, `${made} made when ${begun} pieces of ten have been begun`);
    waiting.shift()?.();
  }
  await written;
  t.is(made, 100);
});

test('JSON stops when the reader has closed the stream', async (t) => {
  let made = 0;
  const value = {
    *[Symbol.iterator]() {
      for (; made < 100; made++) yield 'x'.repeat(100_000);
    },
  };
  const gone = Object.assign(new Error('gone'), { code: 'EPIPE' });
  const output = new Output(new Writable({ write: (_, __, done) => done(gone) }));
  await output.json(value);
  t.is(await output.finish(), undefined);
  t.true(made < 15, `${made}`);
});

test('JSON is written in pieces that are shorter than the whole', async (t) => {
  const lengths: number[] = [];
  const stream = new Kept();
  const write = stream._write.bind(stream);
  stream._write = (piece: Buffer, encoding, done) => {
    lengths.push(piece.length);
    write(piece, encoding, done);
  };
  const output = new Output(stream);
  const value = Array.from({ length: 30 }, () => 'x'.repeat(100_000));
  await output.json(value);
  t.is(await output.finish(), undefined);
  t.deepEqual(JSON.parse(stream.text), value);
  t.true(stream.text.endsWith(']\n'));
  t.true(Math.max(...lengths) < 1_500_000, lengths.join(', '));
});
