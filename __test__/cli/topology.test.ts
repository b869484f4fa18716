/**
 * `peerdma topology`: its output, its files and its exit status.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree, machine } from '../support/sysfs/expand.ts';
import { program } from './support.ts';

const sysfs = (t: ExecutionContext, name: string, configBytes?: number): string =>
  expandTree(t, describeMachine(machine(name), configBytes === undefined ? {} : { configBytes }));

test('prints the tree, the matrix and the reasons in 100 columns', async (t) => {
  const { status, stdout, stderr } = await program(['topology', '--sysfs', sysfs(t, 'gpu-server')]);
  t.is(status, 0);
  t.is(stderr, '');
  t.regex(stdout, /^host bridge 0000:15 · IOMMU dmar0, 48 bits, device TLB$/m);
  t.regex(
    stdout,
    /^ {6}│ {2}└─ 0000:19:00\.0 3D controller · 10de:2330 GH100 … +21 +vfio-pci +16x16\/32x16 +-----\.-$/m,
  );
  t.regex(stdout, /^ 4 0000:9a:00\.0 3D controller +host 5 +host 5 +host 5 +· +yes 6\*$/m);
  t.regex(stdout, /^ {2}6 {2}0000:9a:00\.0 sends translated requests \(ATS is on\)/m);
  t.regex(stdout, /^\* prerequisites\n {2}- 0000:9b:00\.0 is in a low-power state \(D3hot\)/m);
  t.regex(stdout, /^ {2}- from 0000:9a:00\.0: 0x34000000000\.\.0x36100000000 is 0000:99:01\.0$/m);
  t.regex(stdout, /^cliques: .*\n  - 0: 0000:18:00\.0 0000:19:00\.0 0000:1a:00\.2 0000:9a:00\.0 0000:9b:00\.0$/m);
  for (const line of stdout.split('\n')) t.true(line.length <= 100, line);
  t.false(stdout.includes('\u001b'), 'no colours where there is no terminal');
});

test('keeps the columns in place when the terminal has colours', async (t) => {
  const root = sysfs(t, 'gpu-server');
  const plain = await program(['topology', '--sysfs', root]);
  const before = { ...process.env };
  t.teardown(() => Object.assign(process.env, before));
  for (const name of ['NO_COLOR', 'NODE_DISABLE_COLORS', 'FORCE_COLOR']) delete process.env[name];
  const coloured = await program(['topology', '--sysfs', root], true);
  t.true(coloured.stdout.includes('\u001b[32myes'));
  t.is(stripVTControlCharacters(coloured.stdout), plain.stdout);
});

test('prints the matrix of named devices in their order', async (t) => {
  const root = sysfs(t, 'laptop');
  const { status, stdout } = await program(['topology', '--sysfs', root, '04:00.0', '0000:01:00.0']);
  t.is(status, 0);
  t.regex(stdout, /^ 1 0000:04:00\.0 NVMe +· +\? 1\*$/m);
  t.regex(stdout, /^ 2 0000:01:00\.0 3D controller +\? 1\* +·$/m);
  t.regex(stdout, /it may drop requests\s+silently/);
  const gone = await program(['topology', '--sysfs', root, '09:00.0']);
  t.is(gone.status, 1);
  t.regex(gone.stderr, /ERR_DEVICE_NOT_FOUND: there is no PCI device 0000:09:00\.0/);
  const one = await program(['topology', '--sysfs', root, '04:00.0']);
  t.regex(one.stdout, /needs two devices that do DMA: there is one/);
});

test('splits the matrix of many devices into blocks of columns', async (t) => {
  const functions = Array.from(
    { length: 18 },
    (_, index) =>
      `  ${(index + 1).toString(16).padStart(2, '0')}.0 1af4:1110 class=050000 group=${index} driver=vfio-pci bar2=pref64:16M@0x${(index + 16).toString(16)}0000000`,
  );
  const root = expandTree(t, describeMachine(['cpu amd 25', 'host 0000:00', ...functions].join('\n')));
  const { stdout } = await program(['topology', '--sysfs', root]);
  t.regex(stdout, /^ {37}1 +2 +3 +4 +5 +6 +7$/m);
  t.regex(stdout, /^ {37}15 +16 +17 +18$/m);
  for (const line of stdout.split('\n')) t.true(line.length <= 100, line);
});

test('shortens a large tree to the devices of the matrix', async (t) => {
  const chipset = Array.from(
    { length: 40 },
    (_, index) => `  ${(index >> 3).toString(16).padStart(2, '0')}.${index & 7} 8086:3450 class=088000`,
  );
  const text = ['cpu intel 6', 'host 0000:00', ...chipset, machine('laptop').replaceAll('0000:00', '0000:40')].join(
    '\n',
  );
  const root = expandTree(t, describeMachine(text));
  const short = await program(['topology', '--sysfs', root]);
  t.notRegex(short.stdout, /0000:00:02\.3/);
  t.regex(short.stdout, /^host bridge 0000:40 .* \d+ more \(--all\)$/m);
  t.regex(short.stdout, /0000:04:00\.0 NVMe/);
  const all = await program(['topology', '--sysfs', root, '--all']);
  t.regex(all.stdout, /0000:00:02\.3 system peripheral/);
  t.notRegex(all.stdout, /--all/);
});

test('prints the host and the matrix as JSON, with addresses as strings', async (t) => {
  const { status, stdout } = await program(['topology', '--sysfs', sysfs(t, 'gpu-server'), '--json']);
  t.is(status, 0);
  const json = JSON.parse(stdout) as {
    functions: { address: string; bars: { address: string; length: string }[] }[];
    groups: { number: number; members: string[] }[];
    iommus: { name: string; addressBits: number }[];
    cpu: unknown;
    peerToPeer: {
      devices: string[];
      cells: { initiator: string; target: string; verdict: string; reasons: unknown[] }[];
      bypasses: { start: string }[];
      cliques: unknown[];
      withoutClique: unknown[];
    };
  };
  t.is(json.functions.length, 17);
  t.deepEqual(json.functions.find(({ address }) => address === '0000:18:00.0')?.bars[1], {
    index: 2,
    kind: 'memory64',
    address: '0x20000000000',
    length: '0x2000000000',
    prefetchable: true,
    flags: '0x14220c',
  } as never);
  t.deepEqual(json.groups.find(({ number }) => number === 33)?.members, [
    '0000:99:00.0',
    '0000:99:01.0',
    '0000:9a:00.0',
    '0000:9b:00.0',
  ]);
  t.is(json.iommus[0]?.addressBits, 48);
  t.is(json.peerToPeer.cells.length, 20);
  t.is(json.peerToPeer.bypasses[0]?.start, '0x34000000000');
  const devices = ['0000:18:00.0', '0000:19:00.0', '0000:1a:00.2', '0000:9a:00.0', '0000:9b:00.0'];
  t.deepEqual(json.peerToPeer.cliques, [{ number: 0, devices }]);
  t.deepEqual(json.peerToPeer.withoutClique, []);
});

test('advises a user without privileges to run the command as root', async (t) => {
  const { status, stdout } = await program(['topology', '--sysfs', sysfs(t, 'gpu-server', 64)]);
  t.is(status, 0);
  t.regex(stdout, /0000:17:00\.0 bridge · 1000:c030 PCIe Switch mana… +4 +pcieport +32x16 +\?$/m);
  t.regex(stdout, /run the command as root to read them/);
  t.regex(stdout, /0x22000000000\.\.|may be 0000:17:01\.0/);
});

test('lists invalid contents of /sys and exits with status 1', async (t) => {
  const root = expandTree(t, '[bus/pci/devices/0000:00:04.0]\nvendor = 0x8086\nclass = many');
  const { status, stdout } = await program(['topology', '--sysfs', root]);
  t.is(status, 1);
  t.regex(stdout, /^invalid contents of \/sys\n {2}- bus\/pci\/devices\/0000:00:04\.0\/class holds "many"/m);
});

test('writes a self-contained picture and page, whatever names /sys has', async (t) => {
  const root = expandTree(
    t,
    describeMachine(machine('gpu-server').replaceAll('driver=mlx5_core', 'driver=<script>&"')),
  );
  const [svg, html] = [join(root, 'topology.svg'), join(root, 'topology.html')];
  const { status, stdout } = await program([
    'topology',
    '--sysfs',
    root,
    '--svg',
    svg,
    '--html',
    html,
    '18:00.0',
    '9b:00.0',
    '1a:00.0',
  ]);
  t.is(status, 0);
  t.is(stdout, '', 'files instead of text');
  const picture = readFileSync(svg, 'utf8');
  const page = readFileSync(html, 'utf8');
  for (const text of [picture, page]) {
    t.regex(text, /0000:18:00\.0/);
    t.regex(text, /&lt;script&gt;&amp;&quot;/);
    t.notRegex(text, /<script>&/);
    t.notRegex(text, /(?:src|href|url)\s*[=(](?!"data:,")/, 'nothing is fetched');
    t.deepEqual(text.match(/https?:\/\/[^"]+/g) ?? [], text === picture ? ['http://www.w3.org/2000/svg'] : []);
  }
  t.regex(page, /Content-Security-Policy" content="default-src 'none'/);
  t.is([...page.matchAll(/data-pair="/g)].length, 6);
  const open = picture.match(/<(?:g|text|svg|style|title)\b/g)?.length;
  t.is(picture.match(/<\/(?:g|text|svg|style|title)>/g)?.length, open, 'elements are closed');
});

test('writes a page of a machine without pairs, and a picture of one without PCI devices', async (t) => {
  const root = expandTree(t, describeMachine('host 0000:00\n  00.0 8086:0d57 class=060000'));
  const html = join(root, 'page.html');
  t.is((await program(['topology', '--sysfs', root, '--html', html])).status, 0);
  t.notRegex(readFileSync(html, 'utf8'), /Peer-to-peer/);
  const empty = expandTree(t, '[bus/pci/devices]');
  mkdirSync(join(empty, 'bus/pci/devices'), { recursive: true });
  const { status, stdout } = await program(['topology', '--sysfs', empty, '--svg', join(empty, 'a.svg')]);
  t.is(status, 0);
  t.is(stdout, '');
  t.regex((await program(['topology', '--sysfs', empty])).stdout, /needs two devices that do DMA: there are none/);
});

test('rejects missing folders, unknown options and files that cannot be written', async (t) => {
  const nowhere = await program(['topology', '--sysfs', '/nowhere']);
  t.is(nowhere.status, 1);
  t.regex(nowhere.stderr, /\/nowhere has no bus\/pci\/devices/);
  t.is((await program(['topology', '--sysfs', ''])).status, 2);
  t.is((await program(['topology', '--picture'])).status, 2);
  const root = sysfs(t, 'laptop');
  const unwritable = await program(['topology', '--sysfs', root, '--svg', '/nowhere/a.svg']);
  t.is(unwritable.status, 1);
  t.regex(unwritable.stderr, /ERR_SYSTEM: \/nowhere\/a\.svg: write failed: ENOENT/);
  t.is((await program(['topology', '--sysfs', root, 'nvme0'])).status, 2, 'not a PCI address');
  t.regex((await program(['topology', '--help'])).stdout, /--sysfs DIR/);
});
