/**
 * Opens devices and replaces derived findings by facts of the open devices. Opening resets a device.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { GuestMemory } from '../guest/guest-memory.ts';
import type { PciFunction } from '../host/model.ts';
import { PAGE } from '../host/peer-to-peer/target-bars.ts';
import { VfioContainerManager } from '../vfio/container-manager.ts';
import type { VfioDevice } from '../vfio/vfio-device.ts';
import { barFindings } from './device/bars.ts';
import type { Facts } from './facts.ts';
import {
  type DeviceDiagnosis,
  type Diagnosis,
  type DoctorFinding,
  type DoctorFindingId,
  aboutDevice,
  summary,
} from './finding.ts';

/**
 * Opens devices that a back end could open, one after the other. Skips devices that require a VF token.
 *
 * @internal
 */
export async function diagnoseByOpening(facts: Facts, { machine, devices }: Diagnosis): Promise<Diagnosis> {
  const diagnosed: DeviceDiagnosis[] = [];
  for (const device of devices) {
    const has = (wanted: DoctorFindingId): boolean => device.findings.some(({ id }) => id === wanted);
    diagnosed.push(has('backend') && !has('vf-token') ? await diagnoseOpenDevice(facts, device) : device);
  }
  return summary(machine, diagnosed);
}

async function diagnoseOpenDevice(facts: Facts, { address, pci, findings }: DeviceDiagnosis): Promise<DeviceDiagnosis> {
  const memory = await GuestMemory.create();
  const manager = new VfioContainerManager(memory);
  try {
    const device = await manager.open(address);
    const { backend, reason } = manager.inspect();
    const evidence = `it was opened: ${reason}`;
    const opened: DoctorFinding = { id: 'backend', state: 'ok', text: `opened by ${backend}`, evidence };
    const bars = openBars(facts, pci, device, backend === 'iommufd');
    return aboutDevice(pci, [...withBackend(findings, opened).filter(({ id }) => id !== 'bar'), ...bars]);
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    const { message: text, code } = error;
    const evidence = 'opening it failed';
    return aboutDevice(pci, withBackend(findings, { id: 'backend', state: 'blocked', text, evidence, code }));
  } finally {
    await manager.close();
    await memory.close();
  }
}

function withBackend(findings: readonly DoctorFinding[], backend: DoctorFinding): DoctorFinding[] {
  return findings.map((finding) => (finding.id === 'backend' ? backend : finding));
}

function openBars(facts: Facts, pci: PciFunction, { regions }: VfioDevice, exported: boolean): DoctorFinding[] {
  const mappable = (index: number): boolean => regions[index]?.mmapAreas.some(hasWholePage) === true;
  return barFindings(facts, pci, { mappable, exported });
}

function hasWholePage({ start, end }: AddressRange): boolean {
  return ((start + PAGE - 1n) / PAGE) * PAGE + PAGE <= end;
}
