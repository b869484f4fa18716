/**
 * Replaces KVM in a process that loads this module first: `node --import=./…/kvm-stub.ts`.
 *
 * A virtual machine executes nothing. With `PEERDMA_TEST_NO_KVM` in the environment, `/dev/kvm` does not exist.
 */
import type { NativeMachine } from '#native';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { nativeError } from '../../support/native-error.ts';
import { NativeMachineStub } from '../../support/native-machine-stub.ts';

function create(processors: number): NativeMachine {
  if (process.env['PEERDMA_TEST_NO_KVM'] === undefined) {
    return new NativeMachineStub(processors) as unknown as NativeMachine;
  }
  const text = 'opening KVM: open(/dev/kvm) failed with ENOENT (No such file or directory)';
  throw nativeError('ERR_KVM_UNAVAILABLE', text, { errno: 'ENOENT', syscall: 'open(/dev/kvm)' });
}

VirtualMachine.create = async (options) => VirtualMachine.createOn({ create }, options);
