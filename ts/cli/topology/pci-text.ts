/**
 * Formats PCI facts as short texts.
 */
import { hex } from '../../address-range.ts';
import { sizeOf } from '../../size.ts';
import {
  ACS_CONTROLS,
  type AcsControl,
  type BarResource,
  type HostIommu,
  type PcieLinkFacts,
  type PciFunction,
} from '../../host.ts';

/** Names of common classes and subclasses (PCI Code and ID Assignment Specification). */
const CLASSES: Readonly<Record<string, string>> = {
  '00': 'unclassified',
  '01': 'storage',
  '0106': 'SATA',
  '0107': 'SAS',
  '0108': 'NVMe',
  '02': 'network',
  '0207': 'InfiniBand',
  '03': 'display',
  '0302': '3D controller',
  '04': 'multimedia',
  '0403': 'audio',
  '05': 'memory',
  '0502': 'CXL memory',
  '06': 'bridge',
  '0600': 'host bridge',
  '0601': 'ISA bridge',
  '07': 'communication',
  '08': 'system peripheral',
  '0b': 'processor',
  '0c': 'serial bus',
  '0c03': 'USB',
  '0c05': 'SMBus',
  '0d': 'wireless',
  '10': 'encryption',
  '11': 'signal processing',
  '12': 'accelerator',
  '13': 'instrumentation',
};
const PORTS: Readonly<Partial<Record<PciFunction['portType'], string>>> = {
  'root-port': 'root port',
  'switch-upstream': 'upstream port',
  'switch-downstream': 'downstream port',
  'pcie-to-pci-bridge': 'bridge to PCI',
  'pci-to-pcie-bridge': 'bridge from PCI',
  'event-collector': 'event collector',
};
/** A letter for each ACS control, in the order of the bits. */
const ACS_LETTERS: Readonly<Record<AcsControl, string>> = {
  SrcValid: 'S',
  TransBlk: 'B',
  ReqRedir: 'R',
  CmpltRedir: 'C',
  UpstreamFwd: 'U',
  EgressCtrl: 'E',
  DirectTrans: 'D',
};

/** Explains the letters of {@link acsLetters}. */
export const ACS_LEGEND: string =
  'ACS: S source validation, B translation blocking, R request redirect, C completion redirect, ' +
  'U upstream forwarding, E egress control, D direct translated; - disabled, . not implemented';

/** Names the kind of a function: `root port`, `NVMe`, `virtual function, network`. */
export function functionKind({ classCode, portType, physicalFunction }: PciFunction): string {
  const port = PORTS[portType];
  if (port !== undefined) return port;
  const digits = classCode === 'unknown' ? '' : classCode.toString(16).padStart(6, '0');
  const name = CLASSES[digits.slice(0, 4)] ?? CLASSES[digits.slice(0, 2)] ?? (digits ? `class ${digits}` : 'unknown');
  return physicalFunction === undefined ? name : `virtual function, ${name}`;
}

/** Formats the ACS controls: `S-RCU.-`, `none`, `?`. */
export function acsLetters({ acs }: PciFunction): string {
  if (acs === 'unknown') return '?';
  if (acs === 'none') return 'none';
  return ACS_CONTROLS.map((each) =>
    acs.on.includes(each) ? ACS_LETTERS[each] : acs.has.includes(each) ? '-' : '.',
  ).join('');
}

/** Formats a link: `32x16`, with `of …` if it could be faster or wider. Empty without a link. */
export function linkText({ link }: PciFunction): string {
  if (link === undefined) return '';
  const { speed, width, mostSpeed, mostWidth } = link;
  if (speed === undefined && width === undefined) return mostWidth === undefined ? '' : 'no link';
  const now = speedAndWidth(speed, width);
  return isLinkDegraded(link) ? `${now} of ${speedAndWidth(mostSpeed, mostWidth)}` : now;
}

/** Whether a link is slower or narrower than this port supports. */
export function isLinkDegraded({ speed, width, mostSpeed, mostWidth }: PcieLinkFacts): boolean {
  const below = (now: number | undefined, most: number | undefined): boolean =>
    now !== undefined && most !== undefined && now < most;
  return below(speed, mostSpeed) || below(width, mostWidth);
}

function speedAndWidth(speed: number | undefined, width: number | undefined): string {
  return `${speed ?? '?'}x${width ?? '?'}`;
}

/** Formats a BAR: `BAR 2: 16 MiB at 0xfc000000, 64 bits, prefetchable`. */
export function barText({ index, kind, address, length, prefetchable }: BarResource): string {
  const name = kind === 'rom' ? 'ROM' : `BAR ${index}`;
  const place = address === undefined ? 'no address' : `at ${hex(address)}`;
  const width = { io: ', I/O ports', memory32: '', memory64: ', 64 bits', rom: '' }[kind];
  return `${name}: ${sizeOf(length)} ${place}${width}${prefetchable ? ', prefetchable' : ''}`;
}

/** Formats an IOMMU: `dmar0, 48 bits, device TLB`. */
export function iommuText({ name, addressBits, deviceTlb }: HostIommu): string {
  const bits = addressBits === 'unknown' ? '' : `, ${addressBits} bits`;
  return `${name}${bits}${deviceTlb === true ? ', device TLB' : ''}`;
}
