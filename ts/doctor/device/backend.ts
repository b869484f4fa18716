/**
 * Reports the back end that would open a device, by the rules of `VfioContainerManager`'s `auto`.
 *
 * `auto` uses iommufd if it supports all features, otherwise type1 (ts/vfio/backend-choice.ts). Facts that only an open
 * device reports are derived.
 */
import { PeerDmaError } from '../../errors.ts';
import type { PciFunction } from '../../host/model.ts';
import { filesOf } from '../../host/vfio-files.ts';
import {
  NO_DMA_BUFS,
  deviceFileRefused,
  groupUnavailable,
  mapsNoFiles,
  noDeviceFile,
  withoutRemapping,
} from '../../vfio/opening-errors.ts';
import { WHY_IOMMUFD, whyType1 } from '../../vfio/backend-choice.ts';
import { dmaBufsOf } from '../dma-bufs.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';
import type { Probes } from '../probe.ts';

/** Why a back end cannot open a device. */
interface Refusal {
  readonly text: string;
  readonly code?: PeerDmaError['code'];
  /** The file that this user cannot open. */
  readonly file?: string;
}

/** @param group IOMMU group of the device @internal */
export function backendFinding(facts: Facts, device: PciFunction, group: number): DoctorFinding {
  const { probes } = facts;
  const { driver } = device;
  const id = 'backend';
  if (probes === 'unknown') {
    return { id, state: 'unknown', text: 'which back end would open it is unknown here', evidence: 'no /dev' };
  }
  const iommufd = iommufdRefusal(facts, probes, device, group);
  const type1 = type1Refusal(facts, probes, device, group);
  const dmaBufs = dmaBufsOf(facts.system.kernel, driver);
  const accessEvidence = evidenceOf(facts, device);
  if (iommufd === undefined && dmaBufs.given === true) {
    return {
      id,
      state: 'ok',
      text: 'opened by iommufd',
      evidence: [WHY_IOMMUFD, dmaBufs.evidence, ...accessEvidence].join('; '),
    };
  }
  if (iommufd === undefined && dmaBufs.given === 'unknown') {
    const either = 'opened by iommufd if its BARs can be exported as dma-bufs, otherwise by type1';
    const evidence = [dmaBufs.evidence, ...accessEvidence].join('; ');
    if (type1 === undefined) return { id, state: 'ok', text: either, evidence };
    return { id, state: 'unknown', text: `${either}, which then fails: ${type1.text}`, evidence };
  }
  const evidence = [
    whyType1(iommufd?.text ?? NO_DMA_BUFS),
    ...(iommufd === undefined ? [dmaBufs.evidence] : []),
    ...accessEvidence,
  ];
  if (type1 === undefined) return { id, state: 'ok', text: 'opened by type1', evidence: evidence.join('; ') };
  const fix =
    type1.code === 'ERR_PERMISSION' && type1.file !== undefined ? `sudo chown "$USER" ${type1.file}` : undefined;
  return { id, state: 'blocked', text: type1.text, evidence: evidence.join('; '), fix, code: type1.code };
}

/** Checks all requirements of iommufd except dma-bufs, which the caller checks last. */
function iommufdRefusal(
  { system }: Facts,
  { iommufd }: Probes,
  device: PciFunction,
  group: number,
): Refusal | undefined {
  const { address, vfioFile } = device;
  if (iommufd instanceof PeerDmaError) return refusal(iommufd);
  if (!iommufd.mapsFiles) return refusal(mapsNoFiles());
  const { own } = filesOf(device);
  if (vfioFile === undefined || own === undefined) return refusal(noDeviceFile(address));
  const number = Number(vfioFile.slice('vfio'.length));
  const denied = deniedBy(system.access, own);
  // The message omits other members of the group: they have their own finding.
  if (denied !== undefined) return refusal(deviceFileRefused(address, number, denied, group, []));
  if (system.interrupts.remapped === false && !system.interrupts.unsafeAllowed.iommufd) return unmapped('iommufd');
  return undefined;
}

function type1Refusal({ system }: Facts, { type1 }: Probes, device: PciFunction, group: number): Refusal | undefined {
  const { byGroup = '' } = filesOf(device);
  const denied = deniedBy(system.access, byGroup);
  if (denied !== undefined) return { ...refusal(groupUnavailable(device.address, group, denied)), file: byGroup };
  if (type1 instanceof PeerDmaError) return refusal(type1);
  if (system.interrupts.remapped === false && !system.interrupts.unsafeAllowed.type1)
    return unmapped('vfio_iommu_type1');
  return undefined;
}

function refusal({ message, code }: PeerDmaError): Refusal {
  return { text: message, code };
}

function unmapped(module: string): Refusal {
  return { text: withoutRemapping('this machine', module), code: 'ERR_NO_INTERRUPT_REMAPPING' };
}

/** Returns the error of opening a file, by its permissions; `undefined` if they allow it. */
function deniedBy(access: ReadonlyMap<string, string>, path: string): PeerDmaError | undefined {
  const errno = access.get(path);
  if (errno === undefined || errno === 'ok') return undefined;
  return new PeerDmaError('ERR_SYSTEM', `${path}: ${errno}`, { errno, syscall: `access(${path})` });
}

function evidenceOf({ system }: Facts, device: PciFunction): string[] {
  const { byGroup, own } = filesOf(device);
  return [byGroup, own].flatMap((path) =>
    path === undefined ? [] : [`${path}: access ${system.access.get(path) ?? 'unknown'}`],
  );
}
