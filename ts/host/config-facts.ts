/**
 * Facts of a function decoded from its config space, as far as that could be read.
 */
import type { PeerDmaError } from '../errors.ts';
import { type Chain, capabilities, extendedCapabilities } from '../pci/config/capabilities.ts';
import { ConfigImage } from '../pci/config/config-image.ts';
import {
  ACS_CAP,
  ACS_CTRL,
  ATS_CTRL,
  ATS_CTRL_ENABLE,
  CAP_ID_EXP,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  COMMAND,
  COMMAND_MASTER,
  COMMAND_MEMORY,
  EXP_FLAGS,
  EXP_FLAGS_TYPE,
  EXP_FLAGS_TYPE_SHIFT,
  EXT_CAP_ID_ACS,
  EXT_CAP_ID_ATS,
  EXT_CAP_ID_SRIOV,
  HEADER_TYPE,
  HEADER_TYPE_BRIDGE,
  HEADER_TYPE_CARDBUS,
  HEADER_TYPE_MASK,
  PRIMARY_BUS,
  SRIOV_CTRL,
  SRIOV_CTRL_VF_MSE,
  STD_HEADER_SIZEOF,
} from '../pci/config/registers.ts';
import type { UnknownFact } from './model.ts';
import type { SysFiles } from './sys-files.ts';

/** Type of a function in a PCI Express hierarchy; `conventional` for a function outside of one. */
export type PciePortType =
  | 'endpoint'
  | 'legacy-endpoint'
  | 'root-port'
  | 'switch-upstream'
  | 'switch-downstream'
  | 'pcie-to-pci-bridge'
  | 'pci-to-pcie-bridge'
  | 'integrated-endpoint'
  | 'event-collector'
  | 'conventional';

/** PCI_EXP_TYPE_* (PCI Express Base Specification, 7.5.3.2). */
const PORT_TYPES: Readonly<Record<number, PciePortType>> = {
  0x0: 'endpoint',
  0x1: 'legacy-endpoint',
  0x4: 'root-port',
  0x5: 'switch-upstream',
  0x6: 'switch-downstream',
  0x7: 'pcie-to-pci-bridge',
  0x8: 'pci-to-pcie-bridge',
  0x9: 'integrated-endpoint',
  0xa: 'event-collector',
};

/** Bits of the ACS registers, as `lspci` names them (PCI Express Base Specification, 7.7.11). */
export type AcsControl =
  'SrcValid' | 'TransBlk' | 'ReqRedir' | 'CmpltRedir' | 'UpstreamFwd' | 'EgressCtrl' | 'DirectTrans';

/** All ACS controls, in the order of their bits. */
export const ACS_CONTROLS: readonly AcsControl[] = [
  'SrcValid',
  'TransBlk',
  'ReqRedir',
  'CmpltRedir',
  'UpstreamFwd',
  'EgressCtrl',
  'DirectTrans',
];

/** Access control services (ACS): which controls a function has, and which are on. */
export interface AcsFacts {
  /** Controls that the function has. */
  readonly has: readonly AcsControl[];
  /** Controls that are switched on. */
  readonly on: readonly AcsControl[];
}

/** Address translation services (ATS). The function requests translations and sends translated requests. */
export interface AtsFacts {
  /** Whether ATS is on now. IOMMU drivers turn it on when they attach a device to a domain. */
  readonly enabled: boolean;
}

/** Bus numbers of a bridge. */
export interface BridgeBusNumbers {
  /** The bus above the bridge. */
  readonly primary: number;
  /** The bus directly below the bridge. */
  readonly secondary: number;
  /** The highest bus below the bridge. */
  readonly subordinate: number;
}

/** @internal */
export interface ConfigFacts {
  readonly configBytes: number;
  readonly responds: boolean | UnknownFact;
  readonly memoryDecode: boolean | UnknownFact;
  readonly busMaster: boolean | UnknownFact;
  readonly bridge: BridgeBusNumbers | UnknownFact | undefined;
  readonly portType: PciePortType | UnknownFact;
  readonly acs: AcsFacts | 'none' | UnknownFact;
  readonly ats: AtsFacts | 'none' | UnknownFact;
  /** Whether the virtual functions decode memory addresses (SR-IOV control). */
  readonly virtualMemoryDecode: boolean | UnknownFact;
}

const NOTHING: ConfigFacts = {
  configBytes: 0,
  responds: 'unknown',
  memoryDecode: 'unknown',
  busMaster: 'unknown',
  bridge: 'unknown',
  portType: 'unknown',
  acs: 'unknown',
  ats: 'unknown',
  virtualMemoryDecode: 'unknown',
};

/** Reads and decodes the file `config` of the function in `folder`. @internal */
export function readConfig(files: SysFiles, folder: string, address: string): ConfigFacts {
  const path = `${folder}/config`;
  const bytes = files.bytes(path);
  if (bytes === undefined) return NOTHING;
  if (bytes.length < STD_HEADER_SIZEOF) {
    files.report(path, `has ${bytes.length} bytes, fewer than a header`);
    return { ...NOTHING, configBytes: bytes.length };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const command = view.getUint16(COMMAND, true);
  // No function sets all bits of Command. The ids of a working virtual function are all ones (SR-IOV 1.1, 3.4.1.1).
  if (command === 0xffff) {
    files.report(path, 'reads as all ones: the device does not respond');
    return { ...NOTHING, configBytes: bytes.length, responds: false };
  }
  const header = {
    ...NOTHING,
    configBytes: bytes.length,
    responds: true,
    memoryDecode: (command & COMMAND_MEMORY) !== 0,
    busMaster: (command & COMMAND_MASTER) !== 0,
    bridge: busNumbers(view),
  };
  const used = usedBytes(bytes.length);
  if (used === 0) return header;
  if (used !== bytes.length) files.report(path, `has ${bytes.length} bytes: only the first ${used} are used`);
  const report = ({ message }: PeerDmaError): void => files.report(path, message);
  return { ...header, ...capabilityFacts(imageOf(address, bytes.subarray(0, used)), used, report) };
}

/**
 * Sizes of config space that hold only the header. Users without privileges read these, the larger one of a CardBus
 * bridge (Linux, drivers/pci/pci-sysfs.c: `pci_read_config`).
 */
const HEADER_SIZES: ReadonlySet<number> = new Set([STD_HEADER_SIZEOF, 128]);
/**
 * Size of config space if the kernel truncates it because reading more hangs the device or the bus. The quirk is in
 * Linux, drivers/pci/quirks.c (`quirk_citrine`). Other sizes are multiples of 256 (`quirk_nfp6000`).
 */
const CITRINE_SIZE = 0xa0;

/** Bytes to search for capabilities; 0 if only the header was read. */
function usedBytes(length: number): number {
  if (HEADER_SIZES.has(length)) return 0;
  if (length === CITRINE_SIZE) return length;
  if (length < CFG_SPACE_SIZE) return 0;
  if (length >= CFG_SPACE_EXP_SIZE) return CFG_SPACE_EXP_SIZE;
  return length % CFG_SPACE_SIZE === 0 ? length : CFG_SPACE_SIZE;
}

/** Makes an image of a valid size. Bytes that were not read are 0, which ends a list of capabilities. */
function imageOf(address: string, bytes: Uint8Array): ConfigImage {
  const image = new Uint8Array(bytes.length <= CFG_SPACE_SIZE ? CFG_SPACE_SIZE : CFG_SPACE_EXP_SIZE);
  image.set(bytes);
  return new ConfigImage(address, image);
}

function busNumbers(view: DataView): BridgeBusNumbers | undefined {
  const type = view.getUint8(HEADER_TYPE) & HEADER_TYPE_MASK;
  if (type !== HEADER_TYPE_BRIDGE && type !== HEADER_TYPE_CARDBUS) return undefined;
  const [primary, secondary, subordinate] = [0, 1, 2].map((offset) => view.getUint8(PRIMARY_BUS + offset)) as [
    number,
    number,
    number,
  ];
  return { primary, secondary, subordinate };
}

const HIDDEN = { portType: 'unknown', acs: 'unknown', ats: 'unknown', virtualMemoryDecode: 'unknown' } as const;

type CapabilityFacts = Pick<ConfigFacts, 'portType' | 'acs' | 'ats' | 'virtualMemoryDecode'>;

/**
 * Decodes the capabilities. Like Linux (`__pci_find_next_cap`), uses those before a bad link; all others are unknown.
 *
 * @param used bytes of the image that were read; a capability that begins or ends after them is unknown
 */
function capabilityFacts(image: ConfigImage, used: number, report: (problem: PeerDmaError) => void): CapabilityFacts {
  const search = (chain: Chain): ((wanted: number, bytes: number) => number | 'none' | UnknownFact) => {
    const { found, problem } = chain;
    if (problem !== undefined) report(problem);
    const absent = problem !== undefined || found.some(({ offset }) => offset >= used) ? 'unknown' : 'none';
    return (wanted, bytes) => {
      const offset = found.find(({ id }) => id === wanted)?.offset;
      if (offset === undefined) return absent;
      if (offset + bytes > image.size) report(image.bad(offset, 'a capability passes the end'));
      return offset + bytes > used ? 'unknown' : offset;
    };
  };
  const express = search(capabilities(image))(CAP_ID_EXP, EXP_FLAGS + 2);
  if (express === 'unknown') return HIDDEN;
  if (express === 'none') {
    return { portType: 'conventional', acs: 'none', ats: 'none', virtualMemoryDecode: 'unknown' };
  }
  const flags = image.u16(express + EXP_FLAGS);
  const portType = PORT_TYPES[(flags & EXP_FLAGS_TYPE) >> EXP_FLAGS_TYPE_SHIFT] ?? 'unknown';
  // Extended capabilities cannot be read: the host does not reach them, or the recording ends before them.
  if (image.size === CFG_SPACE_SIZE || image.u32(CFG_SPACE_SIZE) === 0xffffffff) return { ...HIDDEN, portType };
  const at = search(extendedCapabilities(image));
  const acs = at(EXT_CAP_ID_ACS, ACS_CTRL + 2);
  const ats = at(EXT_CAP_ID_ATS, ATS_CTRL + 2);
  const sriov = at(EXT_CAP_ID_SRIOV, SRIOV_CTRL + 2);
  return {
    portType,
    acs: typeof acs === 'string' ? acs : { has: named(image.u16(acs + ACS_CAP)), on: named(image.u16(acs + ACS_CTRL)) },
    ats: typeof ats === 'string' ? ats : { enabled: (image.u16(ats + ATS_CTRL) & ATS_CTRL_ENABLE) !== 0 },
    virtualMemoryDecode:
      typeof sriov === 'string' ? 'unknown' : (image.u16(sriov + SRIOV_CTRL) & SRIOV_CTRL_VF_MSE) !== 0,
  };
}

function named(bits: number): AcsControl[] {
  return ACS_CONTROLS.filter((_, index) => (bits & (1 << index)) !== 0);
}
