/**
 * Reports how a device can be reset. Without a reset, state of one guest is visible to the next.
 */
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/** @internal */
export function resetFinding({ host }: Facts, { address, responds, resetMethods }: PciFunction): DoctorFinding {
  const id = 'reset';
  const file = `${host.root}/bus/pci/devices/${address}/reset_method`;
  if (responds === false) {
    const text = 'cannot be reset while it does not respond';
    return { id, state: 'warning', text, evidence: `${file} lists the methods of the device when it responded` };
  }
  if (resetMethods === 'unknown') {
    const text = 'can be reset; kernels before 5.15 do not report how';
    return { id, state: 'ok', text, evidence: `reset exists, ${file} does not` };
  }
  if (resetMethods.length > 0) {
    return { id, state: 'ok', text: `can be reset: ${resetMethods.join(', ')}`, evidence: file };
  }
  const text = 'cannot be reset on its own: the next guest finds the state that the last one left';
  return { id, state: 'warning', text, evidence: `no ${file}` };
}
