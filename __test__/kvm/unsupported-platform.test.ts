/**
 * Virtual machines on a platform whose native core has none. A stub takes the place of that core.
 */
import test from 'ava';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { GuestMemory } from '../../ts/index.ts';
import { VirtualMachine } from '../../ts/kvm.ts';
import { rejectsCode } from '../support/errors.ts';
import { scratchFolder } from '../support/scratch.ts';

const { arch } = process;

/** The loader of the native core on arm64, beside a package whose core has one function. */
async function loadOnArm64(folder: string): Promise<typeof import('#native')> {
  const core = join(folder, 'node_modules/@peerdma/binding-linux-arm64-gnu');
  mkdirSync(core, { recursive: true });
  writeFileSync(join(core, 'index.js'), 'exports.hostPageSize = () => 4096;');
  const loader = join(folder, 'binding.mjs');
  copyFileSync(new URL('../../ts/native/binding.js', import.meta.url), loader);
  Object.defineProperty(process, 'arch', { value: 'arm64' });
  try {
    return (await import(pathToFileURL(loader).href)) as typeof import('#native');
  } finally {
    Object.defineProperty(process, 'arch', { value: arch });
  }
}

test('a native core without virtual machines reports the platform when one is created', async (t) => {
  const { NativeMachine, hostPageSize } = await loadOnArm64(scratchFolder(t));
  t.is(Number(hostPageSize()), 4096);
  await using memory = await GuestMemory.create({ addressWidth: 32 });
  const error = await rejectsCode(t, VirtualMachine.createOn(NativeMachine, { memory }), 'ERR_UNSUPPORTED_PLATFORM');
  t.is(error.message, 'virtual machines of KVM do not exist for linux-arm64-gnu: peerdma/kvm runs on Linux on x86-64');
  t.deepEqual(memory.inspect().targets, []);
});
