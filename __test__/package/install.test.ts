/**
 * The packages, installed by a user from a registry. There is no compiler on the PATH, and each line of Node is tested.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { nodes } from './support/nodes.ts';
import { here, path, readmeExample, servePackages } from './support/packages.ts';
import { type Outcome, Project } from './support/project.ts';
import { binaryProblems, buildCore, lintPackage } from './support/scripts.ts';

// The binary of a release, or the one built for this machine if its toolchain is missing.
let toolchainMissing: string | undefined;
const binary = await buildCore(here).catch((error: Error) => {
  toolchainMissing = error.message;
  return path(`ts/native/${here.binary}`);
});
const nodesHere = await nodes();

const packages = await servePackages(binary);
const { tarballs, registry } = packages;
test.after.always(() => packages.close());

const example = readmeExample();

/**
 * The README's first example as JavaScript.
 *
 * The first test compiles it against the installed package.
 */
let compiledExample: string | undefined;

test.serial('publint and attw report no problem of the packages', async (t) => {
  for (const tarball of Object.values(tarballs)) await t.notThrowsAsync(() => lintPackage(tarball), tarball);
});

(toolchainMissing === undefined ? test.serial : test.serial.skip)(
  `the binary needs no newer glibc than documented${toolchainMissing === undefined ? '' : ` (${toolchainMissing})`}`,
  (t) => {
    t.deepEqual(binaryProblems(binary, here), []);
  },
);

test.serial('a TypeScript project compiles against the installed package, with declarations checked', async (t) => {
  const project = await installed(t, process.execPath);
  project.write('example.ts', example.code);
  project.write('consumer.ts', readFileSync(path('scripts/consumer/consumer.ts'), 'utf8'));
  project.write(
    'tsconfig.json',
    JSON.stringify({
      compilerOptions: {
        target: 'es2022',
        lib: ['es2023', 'esnext.disposable'],
        module: 'nodenext',
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        types: ['node'],
        typeRoots: [path('node_modules/@types')],
      },
      files: ['example.ts', 'consumer.ts'],
    }),
  );
  const { status, stdout } = spawnSync(path('node_modules/.bin/tsc'), ['-p', project.folder], { encoding: 'utf8' });
  t.is(status, 0, stdout);
  compiledExample = readFileSync(join(project.folder, 'example.js'), 'utf8');
});

/** Writes a snapshot for `peerdma view`, whose page needs the bundles of the package. */
const SNAPSHOT = `
import { writeFileSync } from 'node:fs';
import { GuestMemory } from 'peerdma';
const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4096n }] });
writeFileSync('snapshot.json', JSON.stringify(memory.inspect()));
await memory.close();
`;

for (const { major, path: node, missing } of nodesHere) {
  if (node === undefined) {
    test.serial.skip(`the package runs on Node ${major} (${missing})`, () => {});
    continue;
  }
  test.serial(`the package runs on Node ${major}`, async (t) => {
    const project = await installed(t, node);
    t.true((await project.run('node', '--version')).stdout.startsWith(`v${major}.`));
    project.write('example.js', compiledExample ?? '');
    succeeds(t, await project.run('node', 'example.js'), example.output);
    project.write('worker.js', "import { Worker } from 'node:worker_threads'; new Worker('./example.js');");
    succeeds(t, await project.run('node', 'worker.js'), example.output);
    const help = await project.run('npx', 'peerdma', '--help');
    t.is(help.status, 0, help.stderr);
    t.regex(help.stdout, /^usage: peerdma /);
    project.write('snapshot.js', SNAPSHOT);
    succeeds(t, await project.run('node', 'snapshot.js'), '');
    const view = await project.run('npx', 'peerdma', 'view', 'snapshot.json');
    succeeds(t, view, 'wrote snapshot.html: open it in a browser\n');
    const demo = await project.run('npx', 'peerdma', 'demo');
    t.is(demo.status, 0, demo.stderr);
    t.regex(demo.stdout, /^ {3}rolled back everywhere: device A still reaches the BAR .*"peer-to-peer!"$/m);
  });
}

/** Prints the results of a part in pure TypeScript, and of a part that needs the native core. */
const PROBE = `
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError } from 'peerdma';
console.log(String(AddressRange.of(0n, 1n)));
const tell = (error) => console.log(error instanceof PeerDmaError, error.code, error.message, error.cause?.code);
try { MemoryFile.create(4096n) } catch (error) { tell(error) }
await GuestMemory.create({ ram: [{ start: 0n, length: 4096n }] }).catch(tell);
`;

test.serial(
  'without the package of its platform it is imported, and the first use reports which is missing',
  async (t) => {
    const project = await installed(t, process.execPath, '--omit=optional');
    project.write('probe.js', PROBE);
    const said =
      'true ERR_NATIVE_CORE_MISSING the package @peerdma/binding-linux-x64-gnu, the native core of peerdma for ' +
      'linux-x64-gnu, is not installed: install peerdma with its optional dependencies MODULE_NOT_FOUND';
    succeeds(t, await project.run('node', 'probe.js'), `0x0..0x1\n${said}\n${said}\n`);
  },
);

test.serial(
  'on an unsupported platform it is installed and imported, and the first use reports the platform',
  async (t) => {
    const project = await installed(t, process.execPath, '--os=darwin', '--cpu=arm64');
    project.write('probe.js', PROBE);
    project.write(
      'elsewhere.cjs',
      "for (const [name, value] of [['platform', 'darwin'], ['arch', 'arm64']]) Object.defineProperty(process, name, { value });",
    );
    const said =
      'true ERR_UNSUPPORTED_PLATFORM the native core of peerdma does not exist for darwin-arm64 (it would be the package ' +
      '@peerdma/binding-darwin-arm64): it runs on linux-x64-gnu, linux-x64-musl, linux-arm64-gnu MODULE_NOT_FOUND';
    const { stdout, stderr } = await project.run('node', '--require', './elsewhere.cjs', 'probe.js');
    t.is(stdout, `0x0..0x1\n${said}\n${said}\n`, stderr);
    t.is(
      (await project.run('node', '--require', './elsewhere.cjs', 'node_modules/peerdma/dist/cli/main.js', '-h')).status,
      0,
    );
  },
);

test.serial('a Node that is linked with musl asks for the package for musl', async (t) => {
  const project = await installed(t, process.execPath);
  project.write('probe.js', PROBE);
  project.write('musl-node', '\x7fELF /lib/ld-musl-x86_64.so.1\0');
  project.write('elsewhere.cjs', "process.execPath = require('node:path').resolve('musl-node');");
  const { stdout } = await project.run('node', '--require', './elsewhere.cjs', 'probe.js');
  t.regex(stdout, /ERR_NATIVE_CORE_MISSING the package @peerdma\/binding-linux-x64-musl, .* is not installed/);
});

/** A new project with the package installed. npm adds the platform's package if it fits. */
async function installed(t: ExecutionContext, node: string, ...options: string[]): Promise<Project> {
  const project = new Project(node, registry.url);
  t.teardown(() => project.remove());
  for (const compiler of ['cargo', 'rustc', 'gcc', 'cc']) {
    await t.throwsAsync(project.run(compiler, '--version'), { code: 'ENOENT' });
  }
  const downloads = registry.downloads.length;
  const { status, stderr } = await project.run('npm', 'install', 'peerdma', ...options);
  t.is(status, 0, stderr);
  const fits = options.length === 0 ? [here.manifest.name] : [];
  t.deepEqual(registry.downloads.slice(downloads).sort(), [...fits, 'peerdma'].sort());
  const addons = readdirSync(join(project.folder, 'node_modules'), { recursive: true }).filter((file) =>
    String(file).endsWith('.node'),
  );
  t.deepEqual(addons, options.length === 0 ? [join(here.manifest.name, here.binary)] : []);
  return project;
}

function succeeds(t: ExecutionContext, { status, stdout, stderr }: Outcome, output: string): void {
  t.is(status, 0, stderr);
  t.is(stdout, output);
}
