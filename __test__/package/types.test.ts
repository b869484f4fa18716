/**
 * The published declarations with the oldest supported TypeScript.
 *
 * The projects have as few options as possible.
 */
import test from 'ava';
import { readFileSync } from 'node:fs';
import { installPeerdma, path, readmeExample, servePackages } from './support/packages.ts';

const packages = await servePackages();
const project = await installPeerdma(packages);
packages.close();
test.after.always(() => project.remove());

const OLDEST = 'scripts/user-tools/node_modules/typescript';

/** A program of values that `using` closes, and of the bytes of a buffer. */
const USING = `
import { GuestMemory, MemoryFile } from 'peerdma';
import { DmaBuffer } from 'peerdma/driver';
await using memory = await GuestMemory.create({ ram: [] });
using file = MemoryFile.create(4096n);
export const bytes: Uint8Array = (await DmaBuffer.allocate(memory, file.length)).bytes;
`;

const NODENEXT = { module: 'nodenext' };
const BUNDLER = { module: 'esnext', moduleResolution: 'bundler' };
const COMPILERS = [
  { name: 'the oldest TypeScript, for Node', tsc: `${OLDEST}/lib/tsc.js`, module: NODENEXT },
  { name: 'the oldest TypeScript, for a bundler', tsc: `${OLDEST}/lib/tsc.js`, module: BUNDLER },
  { name: 'the TypeScript of this checkout, for Node', tsc: 'node_modules/typescript/bin/tsc', module: NODENEXT },
];

for (const { name, tsc, module } of COMPILERS) {
  test.serial(`${name}, compiles against the declarations with target es2022 and no lib`, async (t) => {
    const files = { 'example.ts': readmeExample().code, 'using.ts': USING };
    for (const [file, code] of Object.entries(files)) project.write(file, code);
    project.write('consumer.ts', readFileSync(path('scripts/consumer/consumer.ts'), 'utf8'));
    const common = { target: 'es2022', strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true };
    const types = { types: ['node'], typeRoots: [path('node_modules/@types')] };
    const compilerOptions = { ...common, ...module, ...types, noEmit: true };
    project.write('tsconfig.json', JSON.stringify({ compilerOptions, files: [...Object.keys(files), 'consumer.ts'] }));
    const { status, stdout } = await project.run('node', path(tsc));
    t.is(status, 0, stdout);
  });
}

/** Both declare the symbols of disposal, and `URL`. */
test.serial(
  'the oldest TypeScript compiles against the declarations without the types of Node and of a browser',
  async (t) => {
    project.write('using.ts', USING);
    const compilerOptions = {
      target: 'es2022',
      lib: ['es2022'],
      ...NODENEXT,
      strict: true,
      skipLibCheck: false,
      types: [],
      noEmit: true,
    };
    project.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['using.ts'] }));
    const { status, stdout } = await project.run('node', path(`${OLDEST}/lib/tsc.js`));
    t.is(status, 0, stdout);
  },
);

test('the oldest TypeScript is the one that docs/compatibility.md names', (t) => {
  const { version } = JSON.parse(readFileSync(path(`${OLDEST}/package.json`), 'utf8')) as { version: string };
  const page = readFileSync(path('docs/compatibility.md'), 'utf8');
  t.is(/TypeScript (\d+\.\d+) or later/.exec(page)?.[1], version.replace(/\.\d+$/, ''));
});
