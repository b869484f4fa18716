/**
 * vitest, which evaluates the package itself in some configurations.
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

/** Packages that vitest evaluates itself instead of Node: none, this one, and all. */
const INLINE = [[], ['peerdma'], true] as const;

for (const pool of ['forks', 'threads', 'vmForks', 'vmThreads']) {
  test.serial(`a suite passes in the pool ${pool} of vitest, whether or not vitest inlines the package`, async (t) => {
    project.write('memory.test.js', SUITE);
    const projects = INLINE.map((inline) => ({
      test: { name: `inline: ${String(inline)}`, pool, server: { deps: { inline } } },
    }));
    project.write('vitest.config.js', `export default ${JSON.stringify({ test: { projects } })};`);
    const { status, stdout, stderr } = await project.run(path('node_modules/.bin/vitest'), 'run', '--reporter=json');
    t.is(status, 0, `${stdout}${stderr}`);
    t.is((JSON.parse(stdout) as { numPassedTests: number }).numPassedTests, INLINE.length);
  });
}
