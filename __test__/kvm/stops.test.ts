/**
 * Messages of processors that have stopped.
 */
import test from 'ava';
import { ftruncateSync } from 'node:fs';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { cpuFailed } from '../../ts/kvm/stops.ts';
import { VirtualMachine } from '../../ts/kvm.ts';
import { stubbedMachine } from '../support/native-machine-stub.ts';
import { at, pages } from '../support/pages.ts';
import { truncatableFile } from '../support/truncatable-file.ts';

/** Numbers of the native core, and of the kernel. */
const RUN_FAILED = 7;
const MEMORY_ERROR = 9;
const [EFAULT, EIO] = [14, 5];

function message(vm: VirtualMachine, memory: GuestMemory, reason: number, detail: number, data = 0n): string {
  const { code, message: text } = cpuFailed({ cpu: 0, reason, detail, data }, vm.cpus[0], memory);
  return `${code}: ${text}`;
}

test('a failed run names the memory whose file was truncated', async (t) => {
  const { memory, vm } = await stubbedMachine(t);
  t.regex(
    message(vm, memory, RUN_FAILED, EIO),
    /^ERR_CPU_FAILED: .*processor 0 failed: KVM_RUN failed with errno 5\. rip=/,
  );
  t.regex(message(vm, memory, RUN_FAILED, EFAULT), /cannot access its memory \(EFAULT\)\. The end of dmesg/);
  const { fd, file } = truncatableFile(t, at(4));
  const region = await memory.regions.addRegion({ name: 'high', range: pages(16, 4) });
  await region.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file, offset: 0n } });
  await region.mapToGuest();
  ftruncateSync(fd, Number(at(2)));
  const expected =
    /\(EFAULT\): a part of "high" at 0x10000\.\.0x14000 is missing\. If its file was truncated, restore it/;
  t.regex(message(vm, memory, RUN_FAILED, EFAULT), expected);
});

test('a memory error of the host is named with its guest address, if it has one', async (t) => {
  const { memory, vm } = await stubbedMachine(t);
  const known = message(vm, memory, MEMORY_ERROR, 1, 0x1234n);
  t.regex(known, /^ERR_CPU_FAILED: .*processor 0 failed: the host's memory at 0x1234 has an uncorrectable error\./);
  t.regex(message(vm, memory, MEMORY_ERROR, 0), /the host's memory that it accesses has an uncorrectable error\./);
});
