/**
 * The sub-paths of the installed package: their names, shared classes, and loaded files.
 */
import test from 'ava';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { installPeerdma, servePackages } from './support/packages.ts';
import { ENTRY_POINTS } from '../public-arguments/surface.ts';

const packages = await servePackages();
const project = await installPeerdma(packages);
packages.close();
test.after.always(() => project.remove());

const dist = join(project.folder, 'node_modules/peerdma/dist');

/** The most files that an import may load. Each costs about two milliseconds. */
const MAX_FILES = 11;

/** The files that an import of a file loads, itself included. */
function loadedFiles(file: string, found: Set<string> = new Set()): Set<string> {
  if (found.has(file)) return found;
  found.add(file);
  for (const [, target = ''] of readFileSync(file, 'utf8').matchAll(/^(?:import|\} from) ?"(\.[^"]+)";$/gm)) {
    loadedFiles(join(dirname(file), target), found);
  }
  return found;
}

function containsClass(name: string, files: Iterable<string>): boolean {
  return [...files].some((file) => new RegExp(`\\b${name} = class\\b`).test(readFileSync(file, 'utf8')));
}

for (const [subPath, source] of ENTRY_POINTS) {
  const specifier = join('peerdma', subPath);
  const main = join(dist, subPath === '.' ? 'index.js' : `${subPath}.js`);

  test(`${specifier} exports the values of its source`, async (t) => {
    const expected = Object.keys((await import(source.href)) as object).sort();
    const program = `console.log(JSON.stringify(Object.keys(await import('${specifier}')).sort()))`;
    const { stdout, stderr } = await project.run('node', '--input-type=module', '-e', program);
    t.deepEqual(stdout === '' ? stderr : JSON.parse(stdout), expected);
  });

  test(`${specifier} loads few files`, (t) => {
    const files = [...loadedFiles(main)];
    t.true(files.length <= MAX_FILES, files.join('\n'));
  });
}

test('sub-paths load neither VFIO nor the machine, if they do not export them', (t) => {
  for (const name of ['driver', 'host', 'inspect', 'testing']) {
    t.false(containsClass('VfioContainerManager', loadedFiles(join(dist, `${name}.js`))), name);
  }
  t.true(containsClass('VfioContainerManager', loadedFiles(join(dist, 'index.js'))));
  t.false(containsClass('Lookups', loadedFiles(join(dist, 'index.js'))));
  t.true(containsClass('Lookups', loadedFiles(join(dist, 'host.js'))));
});

/** Errors of each sub-path, and a target and memory that two sub-paths use. */
const SHARED = `
import { GuestMemory, PeerDmaError } from 'peerdma';
import { DmaBuffer, u32 } from 'peerdma/driver';
import { pciAddress } from 'peerdma/host';
import { explain } from 'peerdma/inspect';
import { VirtualMachine } from 'peerdma/kvm';
import { SimulatedDevice, SimulatedIommu } from 'peerdma/testing';
import { VhostUserTarget } from 'peerdma/vhost-user';
const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4096n }] });
await memory.dmaMappers.addDmaMapper(new SimulatedIommu());
await (await DmaBuffer.allocate(memory, 4096n)).close();
for (const call of [
  () => u32(-1),
  () => pciAddress('x'),
  () => explain(memory.inspect(), -1n),
  () => new SimulatedDevice({}),
  () => VirtualMachine.create({ memory, cpus: 0 }),
  () => VhostUserTarget.connect(0),
]) {
  try {
    await call();
  } catch (error) {
    console.log(error instanceof PeerDmaError);
  }
}
await memory.close();
`;

test('classes are the same objects in all sub-paths', async (t) => {
  project.write('shared.js', SHARED);
  const { stdout, stderr } = await project.run('node', 'shared.js');
  t.is(stdout, 'true\n'.repeat(6), stderr);
});

test('classes have their names in bundles', async (t) => {
  const program =
    "import { GuestMemory, PeerDmaError } from 'peerdma'; console.log(GuestMemory.name, PeerDmaError.name)";
  const { stdout, stderr } = await project.run('node', '--input-type=module', '-e', program);
  t.is(stdout, 'GuestMemory PeerDmaError\n', stderr);
});
