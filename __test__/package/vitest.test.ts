/**
 * vitest, which evaluates the package itself where a project says so.
 */
import test from 'ava';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { installPeerdma, path, servePackages } from './support/packages.ts';

const packages = await servePackages();
const project = await installPeerdma(packages);
packages.close();
test.after.always(() => project.remove());
symlinkSync(path('node_modules/vitest'), join(project.folder, 'node_modules/vitest'));

const SUITE = `
import { expect, test } from 'vitest';
import { GuestMemory } from 'peerdma';
test('creates guest memory', async () => {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4096n }] });
  expect(memory.inspect().flat).toHaveLength(1);
  await memory.close();
});
`;

for (const [what, inline] of [
  ['leaves the package to Node', []],
  ['inlines the package', ['peerdma']],
  ['inlines the package and its dependencies', true],
] as const) {
  test.serial(`a suite passes in vitest that ${what}`, async (t) => {
    project.write('memory.test.js', SUITE);
    const config = { test: { server: { deps: { inline } } } };
    project.write('vitest.config.js', `export default ${JSON.stringify(config)};`);
    const { status, stdout, stderr } = await project.run(path('node_modules/.bin/vitest'), 'run', '--reporter=json');
    t.is(status, 0, `${stdout}${stderr}`);
    t.is((JSON.parse(stdout) as { numPassedTests: number }).numPassedTests, 1);
  });
}
