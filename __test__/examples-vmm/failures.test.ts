/**
 * The messages of the example VMM for its failures.
 */
import test from 'ava';
import { SetupError, UsageError, failureText, systemReason } from '../../examples/vmm/failures.ts';
import { requireHostMemory } from '../../examples/vmm/host-memory.ts';
import { PeerDmaError } from '../../ts/index.ts';

test('the failures of a user are one message', (t) => {
  t.is(failureText(new UsageError('--cpus takes a number')), '--cpus takes a number');
  t.is(failureText(new SetupError('no RAM', { cause: new Error('cause') })), 'no RAM');
  const cause = new Error('cause');
  t.is(failureText(new PeerDmaError('ERR_KVM_UNAVAILABLE', 'no KVM', { cause })), 'ERR_KVM_UNAVAILABLE: no KVM');
  t.is(failureText(new PeerDmaError('ERR_CPU_FAILED', 'no page at rip')), 'ERR_CPU_FAILED: no page at rip');
});

test('a mistake in a device of the VMM has its stack', (t) => {
  const cause = new TypeError('level is not a function');
  const text = failureText(new PeerDmaError('ERR_CPU_FAILED', 'a write failed', { cause }));
  t.regex(text, /^ERR_CPU_FAILED: a write failed\nTypeError: level is not a function\n {4}at .*failures\.test\.ts/);
});

test('other mistakes in the program have their stack', (t) => {
  t.regex(failureText(new TypeError('no')), /^TypeError: no\n {4}at .*failures\.test\.ts/);
  t.is(failureText('thrown'), "'thrown'");
});

test('the reason of a failed system call is its text and its name', (t) => {
  const error = Object.assign(new Error("EACCES: permission denied, open 'x'"), { errno: -13, code: 'EACCES' });
  t.is(systemReason(error), 'permission denied (EACCES)');
  t.is(systemReason(new Error('another error')), 'another error');
});

test('a guest that takes more memory than the machine has is an error of its options', (t) => {
  t.notThrows(() => requireHostMemory(512n << 20n, 512n << 20n));
  const message = '--memory: the guest takes 512 MiB, and the machine has 511 MiB available. Give the guest less';
  t.throws(() => requireHostMemory(512n << 20n, (512n << 20n) - 1n), { instanceOf: SetupError, message });
});
