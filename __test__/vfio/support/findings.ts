/**
 * The findings of a diagnosis.
 */
import type { Diagnosis, DoctorFinding, DoctorFindingId } from '../../../ts/host.ts';

/** Findings with an id, about one device if `address` is given. */
export function findings({ machine, devices }: Diagnosis, id: DoctorFindingId, address?: string): DoctorFinding[] {
  const list = address === undefined ? machine : (devices.find((each) => each.address === address)?.findings ?? []);
  return list.filter((finding) => finding.id === id);
}

/** The error codes of blocked findings. */
export function blockedCodes({ machine, devices }: Diagnosis): (string | undefined)[] {
  const all = [...machine, ...devices.flatMap((device) => device.findings)];
  return all.filter(({ state }) => state === 'blocked').map(({ code }) => code);
}
