/**
 * The end of a process with a running guest, and machines that cannot be created.
 */
import test from 'ava';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, renameSync } from 'node:fs';
import { extname } from 'node:path';
import { AssignedDevice, GuestMemory, type PeerDmaError } from '../../../ts/index.ts';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { until } from '../../support/until.ts';
import { newManager } from '../support/backend.ts';
import { testWith } from '../support/devices.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { openVfioFiles } from '../support/open-files.ts';

const SCRIPT = new URL(`../programs/running-machine${extname(import.meta.url)}`, import.meta.url);
const RAM_PAGES = (4 << 20) / 4096;
/** The bit of the signal in a mask of /proc (`proc(5)`). */
const SIGBUS = 1n << 6n;

testWith({ edu: 1 }, 'KVM: a process that is killed while its guest runs leaves no page pinned', async (t, { edu }) => {
  const [bdf = ''] = edu;
  const before = await pinnedAtRest();
  const child = spawn(process.execPath, [...process.execArgv, SCRIPT.pathname, bdf], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  t.true((await pinnedAtRest()) - before >= RAM_PAGES);
  child.kill('SIGKILL');
  t.deepEqual(await ended, [null, 'SIGKILL']);
  t.true((await pinnedAtRest()) - before < RAM_PAGES / 2);
  const memory = await GuestMemory.create();
  const manager = newManager(memory);
  const device = await AssignedDevice.create({ device: await manager.open(bdf), memory });
  await device.close();
  await manager.close();
  await memory.close();
});

test.serial('a signal SIGBUS to a process whose guest runs ends the process', async (t) => {
  const child = spawn(process.execPath, [...process.execArgv, SCRIPT.pathname], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const status = (thread: string): string => readFileSync(`/proc/${child.pid}/task/${thread}/status`, 'latin1');
  const processor = readdirSync(`/proc/${child.pid}/task`).find((one) => status(one).startsWith('Name:\tpeerdma-cpu0'));
  if (processor === undefined) throw new Error('the processor has no thread');
  const blocked = (): bigint => BigInt(`0x${/^SigBlk:\s*(\w+)/m.exec(status(processor))?.[1]}`);
  await until(() => (blocked() & SIGBUS) === 0n, 'the processor is in the guest, where the signal is not blocked');
  process.kill(Number(processor), 'SIGBUS'); // the kernel prefers the thread of that number
  t.deepEqual(await ended, [null, 'SIGBUS']);
});

/** Creates a machine, and returns the error. */
async function problem(): Promise<PeerDmaError> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 0x1000n }] });
  try {
    const error = await VirtualMachine.create({ memory }).then(
      () => undefined,
      (thrown: unknown) => thrown as PeerDmaError,
    );
    if (error === undefined) throw new Error('the machine was created');
    if (memory.inspect().targets.length > 0) throw new Error('the machine is still a target');
    return error;
  } finally {
    await memory.close();
  }
}

test.serial('without /dev/kvm the error has the remedy, and nothing is left', async (t) => {
  const files = openVfioFiles().length;
  renameSync('/dev/kvm', '/dev/kvm-away');
  try {
    const { code, errno, message } = await problem();
    t.deepEqual([code, errno], ['ERR_KVM_UNAVAILABLE', 'ENOENT']);
    t.regex(message, /open\(\/dev\/kvm\) failed with ENOENT .*Load the module kvm_intel or kvm_amd/);
  } finally {
    renameSync('/dev/kvm-away', '/dev/kvm');
  }
  t.is(openVfioFiles().length, files);
});

test.serial('a user who may not open /dev/kvm gets an error with the remedy', async (t) => {
  process.seteuid?.(65_534);
  try {
    const { code, errno, message } = await problem();
    t.deepEqual([code, errno], ['ERR_PERMISSION', 'EACCES']);
    t.regex(message, /Add this user to the group kvm/);
  } finally {
    process.seteuid?.(0);
  }
});
