/**
 * Bundled programs of the installed package.
 */
import test from 'ava';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundlers } from './support/bundlers.ts';
import { here, installPeerdma, path, servePackages } from './support/packages.ts';

const packages = await servePackages();
const project = await installPeerdma(packages);
packages.close();
test.after.always(() => project.remove());

/**
 * Uses the native core and the sorted tree. It has no top-level `await`, which bundles in CommonJS form do not support.
 */
const PROGRAM = `
import { GuestMemory } from 'peerdma';
import { SimulatedIommu } from 'peerdma/testing';
async function main() {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4096n }] });
  const device = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(device);
  device.write(0n, Uint8Array.of(42));
  console.log(memory.read(0n, 1)[0]);
  await memory.close();
}
main().catch((error) => console.log(error.code, error.message));
`;

project.write('program.js', PROGRAM);
const modules = join(project.folder, 'node_modules');

for (const { name, output, bundle } of bundlers) {
  test.serial(`a bundle by ${name} runs beside node_modules`, async (t) => {
    const { status, stderr } = await bundle(project);
    t.is(status, 0, stderr);
    t.like(await project.run('node', output), { status: 0, stdout: '42\n', stderr: '' });
  });
}

test.serial('bundles find the native core where the package manager does not hoist it', async (t) => {
  mkdirSync(join(modules, 'peerdma/node_modules'));
  renameSync(join(modules, '@peerdma'), join(modules, 'peerdma/node_modules/@peerdma'));
  for (const { name, output } of bundlers) t.is((await project.run('node', output)).stdout, '42\n', name);
});

test.serial('bundles name the package of the native core that is not installed', async (t) => {
  rmSync(modules, { recursive: true });
  for (const { name, output } of bundlers) {
    const { stdout } = await project.run('node', output);
    t.regex(stdout, /^ERR_NATIVE_CORE_MISSING the package @peerdma\/binding-linux-x64-gnu, /, name);
  }
});

test.serial('bundles run anywhere with the native core copied beside them', async (t) => {
  const elsewhere = mkdtempSync(join(tmpdir(), 'peerdma-bundle-'));
  t.teardown(() => rmSync(elsewhere, { recursive: true }));
  cpSync(path(`ts/native/${here.binary}`), join(elsewhere, here.binary));
  for (const { name, output } of bundlers) {
    cpSync(join(project.folder, output), join(elsewhere, output));
    t.is((await project.run('node', join(elsewhere, output))).stdout, '42\n', name);
  }
});
