/**
 * How a device can be reset, so that the next guest finds nothing of the last one.
 */
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

/** @internal */
export function resetFinding({ host }: Facts, { address, answers, resetMethods }: PciFunction): Finding {
  const id = 'reset';
  const file = `${host.root}/bus/pci/devices/${address}/reset_method`;
  if (answers === false) {
    const says = 'can not be reset while it does not answer';
    return { id, state: 'warning', says, evidence: `${file} lists what it could do before` };
  }
  if (resetMethods === 'unknown') {
    const says = 'can be reset; how is not said by kernels before 5.15';
    return { id, state: 'ok', says, evidence: `reset beside no ${file}` };
  }
  if (resetMethods.length > 0) {
    return { id, state: 'ok', says: `can be reset: ${resetMethods.join(', ')}`, evidence: file };
  }
  const says = 'can not be reset on its own: what a guest left in it the next one finds';
  return { id, state: 'warning', says, evidence: `no ${file}` };
}
