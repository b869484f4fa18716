/**
 * The installed package on Bun and Deno. install.test.ts has Node.
 */
import test from 'ava';
import { installPeerdma, readmeExample, servePackages } from './support/packages.ts';
import { runtimes } from './support/runtimes.ts';

const all = await runtimes();
const packages = await servePackages();
const projects = {
  complete: await installPeerdma(packages),
  coreless: await installPeerdma(packages, '--omit=optional'),
};
packages.close();
test.after.always(() => Object.values(projects).forEach((project) => project.remove()));
const example = readmeExample();

/** Passes an event from the thread of the native core to a callback, and copies guest memory. */
const EVENTS = `
import { EventFd, GuestMemory } from 'peerdma';
const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 1n << 21n, private: true }] });
memory.write(0x1000n, Uint8Array.of(7));
const event = EventFd.create();
const alive = setInterval(() => {}, 1000); // A listener does not keep a process alive.
const count = await new Promise((resolve) => {
  event.onSignal(resolve);
  event.signal(3n);
});
event.close();
clearInterval(alive);
console.log(count, memory.read(0x1000n, 1)[0]);
await memory.close();
`;

for (const { name, command, missing } of all) {
  if (command === undefined) {
    test.skip(`${name} runs the installed package (${missing})`, () => {});
    continue;
  }
  const [program, ...args] = command;

  test(`${name} runs the installed package`, async (t) => {
    const project = projects.complete;
    project.write('example.ts', example.code);
    t.like(await project.run(program, ...args, 'example.ts'), { status: 0, stdout: example.output });
    project.write('events.js', EVENTS);
    const events = await project.run(program, ...args, 'events.js');
    t.is(events.stdout, '3n 7\n', events.stderr);
  });

  test(`${name} runs the peerdma command`, async (t) => {
    const project = projects.complete;
    const main = 'node_modules/peerdma/dist/cli/main.js';
    const demo = await project.run(program, ...args, main, 'demo');
    t.is(demo.status, 0, demo.stderr);
    t.regex(demo.stdout, /^8\. moving the BAR there fails: ERR_MAP_FAILED/m);
    t.is((await project.run(program, ...args, main, 'nonsense')).status, 2);
  });

  test(`${name} reports a native core that is not installed`, async (t) => {
    const project = projects.coreless;
    const probe =
      "import { MemoryFile } from 'peerdma';\ntry { MemoryFile.create(1n); } catch (e) { console.log(e.code); }\n";
    project.write('probe.js', probe);
    t.like(await project.run(program, ...args, 'probe.js'), { status: 0, stdout: 'ERR_NATIVE_CORE_MISSING\n' });
  });
}
