/**
 * Why a virtual machine cannot be created, with the remedy.
 */
import { PeerDmaError } from '../errors.ts';
import { fromNative } from '../native-call.ts';

/** Errors of opening `/dev/kvm`, and what to do. */
const REMEDIES: Readonly<Record<string, string>> = {
  ENOENT: 'Load the module kvm_intel or kvm_amd. In a virtual machine, enable nested virtualization on its host',
  ENODEV: 'Enable virtualization (VT-x or AMD-V) in the firmware of the host',
  ENXIO: 'Load the module kvm_intel or kvm_amd, and enable virtualization in the firmware of the host',
};

/** Converts an error of the native core. @internal */
export function machineProblem(thrown: unknown): unknown {
  const error = fromNative(thrown);
  if (!(error instanceof PeerDmaError) || error.code !== 'ERR_KVM_UNAVAILABLE') return error;
  const { errno = '', syscall, message } = error;
  if (errno === 'EACCES' || errno === 'EPERM') {
    const remedy = 'Add this user to the group kvm, or run as root';
    return new PeerDmaError('ERR_PERMISSION', `${message}. ${remedy}`, { errno, syscall, cause: error });
  }
  const remedy = REMEDIES[errno];
  const text = remedy === undefined ? message : `${message}. ${remedy}`;
  return new PeerDmaError('ERR_KVM_UNAVAILABLE', text, { errno, syscall, cause: error });
}
