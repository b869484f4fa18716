/**
 * The example VMM as a program, when its guest cannot start: it ends with a status and one message.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { USAGE } from '../../examples/vmm/arguments.ts';
import { KERNEL, fakeBzImage } from './support/bzimage.ts';

const NODE = ['--import=./scripts/typescript/register.mjs', '--import=./__test__/examples-vmm/support/kvm-stub.ts'];

const folder = mkdtempSync(join(tmpdir(), 'vmm-'));
test.after.always(() => rmSync(folder, { recursive: true }));
const file = (name: string, contents: Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, contents);
  return path;
};
const kernel = file('bzImage', fakeBzImage());
const text = file('text', Buffer.from('text'.repeat(1000)));
const missing = join(folder, 'missing');

/** The options of a guest with enough RAM. */
const GUEST = ['--kernel', kernel, '--memory', '32M'];

/** Runs the VMM on a stub of KVM. */
function vmm(args: readonly string[], env = {}): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...NODE, 'examples/vmm/main.ts', ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
}

test('--help prints the usage', (t) => {
  t.like(vmm(['--help']), { status: 0, stdout: `${USAGE}\n`, stderr: '' });
});

const readFailed = (option: string, path: string, reason: string): string =>
  `${option} ${path}: read failed: ${reason}. Name a file that this user can read`;

const failures: [problem: string, args: readonly string[], status: number, message: string][] = [
  ['no arguments', [], 2, '--kernel is missing. Name a bzImage'],
  ['an unknown option', [...GUEST, '--quiet'], 2, "Unknown option '--quiet'. See npm run vmm -- --help"],
  ['no kernel', ['--kernel', missing], 1, readFailed('--kernel', missing, 'no such file or directory (ENOENT)')],
  ['a folder', ['--kernel', folder], 1, readFailed('--kernel', folder, 'illegal operation on a directory (EISDIR)')],
  [
    'another file',
    ['--kernel', text],
    1,
    `--kernel ${text}: not a bzImage: it has no Linux setup header. ` +
      'Name the file arch/x86/boot/bzImage of a built kernel',
  ],
  [
    'no initrd',
    [...GUEST, '--initrd', missing],
    1,
    readFailed('--initrd', missing, 'no such file or directory (ENOENT)'),
  ],
  [
    'too little RAM',
    ['--kernel', kernel, '--memory', '1M'],
    1,
    `the kernel requires RAM at 0x${KERNEL.address.toString(16)}..0x1200000. Give the guest more with --memory`,
  ],
  [
    'a device that does not exist',
    [...GUEST, '--device', 'ffff:00:00.0'],
    1,
    'ERR_DEVICE_NOT_FOUND: there is no PCI device ffff:00:00.0: Run lspci -D for the list',
  ],
];
for (const [problem, args, status, message] of failures) {
  test(`ends with status ${status} and one message for ${problem}`, (t) => {
    t.like(vmm(args), { status, stdout: '', stderr: `vmm: ${message}\n` });
  });
}

test('ends with status 1 and the remedy without /dev/kvm', (t) => {
  const { status, stdout, stderr } = vmm(GUEST, { PEERDMA_TEST_NO_KVM: '1' });
  t.is(
    stderr,
    'vmm: ERR_KVM_UNAVAILABLE: opening KVM: open(/dev/kvm) failed with ENOENT (No such file or directory). ' +
      'Load the module kvm_intel or kvm_amd. In a virtual machine, enable nested virtualization on its host\n',
  );
  t.is(stdout, '');
  t.is(status, 1);
});

test('ends with status 1 and the path of a journal that cannot be written', (t) => {
  const { status, stderr } = vmm([...GUEST, '--journal', join(missing, 'journal')]);
  t.regex(stderr, /^vmm: ERR_SYSTEM: the journal: open failed: ENOENT: .*\/missing\/journal'\n$/);
  t.is(status, 1);
});

test('ends with status 1 for more RAM than the machine has', (t) => {
  const script = 'process.availableMemory = () => 16 * 2 ** 20;';
  const { status, stderr } = vmm(GUEST, {
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}`,
  });
  const lengths = 'the guest takes 32 MiB, and the machine has 16 MiB available';
  t.is(stderr, `vmm: --memory: ${lengths}. Give the guest less\n`);
  t.is(status, 1);
});
