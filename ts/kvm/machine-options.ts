/**
 * Options of a virtual machine.
 */
import { readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** Options of {@link VirtualMachine.create}. */
export interface VirtualMachineOptions {
  /** The memory of the guest. */
  readonly memory: GuestMemory;
  /** The number of processors. Default: 1 */
  readonly cpus?: number;
  /**
   * The result of an access that no handler and no memory answers. Default: `ones`
   *
   * `ones`, as on hardware: a read returns ones, and a write has no effect. `stop`: the run fails with
   * `ERR_CPU_FAILED`.
   */
  readonly unclaimed?: 'ones' | 'stop';
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED` @internal */
export function readMachineOptions(options: VirtualMachineOptions): Required<VirtualMachineOptions> {
  const { memory, cpus = 1, unclaimed = 'ones' } = readOptions(options, ['memory', 'cpus', 'unclaimed']);
  guestAddressSpaceOf(memory); // throws if it is not a GuestMemory
  requireNumber(cpus, 'cpus');
  if (!Number.isInteger(cpus) || cpus < 1) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"cpus" is a whole number from 1 on, not ${valueText(cpus)}`);
  }
  if (unclaimed !== 'ones' && unclaimed !== 'stop') {
    const text = `unclaimed is 'ones' or 'stop', not ${valueText(unclaimed)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }
  return { memory, cpus, unclaimed };
}
