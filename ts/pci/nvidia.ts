/** Data for GPUs of NVIDIA: the approval of peer-to-peer DMA, and mirrors of config space. */
import { readOptions, requireBoolean } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import type { ConfigMirror } from './bar-quirks.ts';
import type { AddedCapability } from './config/added-capabilities.ts';
import { CAP_ID_VNDR } from './config/registers.ts';

/** Clique numbers have 4 bits. */
const LAST_CLIQUE = 15;
/** Bytes of the capability. */
const LENGTH = 8;
/** The clique number in a word whose lower bits are the version, 0. */
const CLIQUE_SHIFT = 3;
/**
 * Offsets that NVIDIA reserves for it: up to Volta, and from Turing on.
 *
 * GPUs from Turing on have MSI-X at the first one.
 */
const OFFSETS = [0xc8, 0xd4];

/**
 * Returns the capability by which a hypervisor approves peer-to-peer DMA between GPUs of NVIDIA.
 *
 * The guest's driver uses it between GPUs of one clique number only. The approval states that such DMA was tested on
 * this host: a driver that relies on a wrong one hangs or computes with wrong data. `nvidiaCliques` of `peerdma/host`
 * proposes the numbers.
 *
 * The layout is that of NVIDIA's specification for hypervisors (mailing list qemu-devel, August 2017 and June 2023),
 * which QEMU implements as `x-nv-gpudirect-clique`. It is at 0xc8 or 0xd4, or else at a free offset.
 *
 * @param clique 0 to 15
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 */
export function nvidiaP2pClique(clique: number): AddedCapability {
  requireNumber(clique, 'clique');
  if (!Number.isInteger(clique) || clique < 0 || clique > LAST_CLIQUE) {
    const reason = `a clique number is 0 to ${LAST_CLIQUE}, not ${valueText(clique)}`;
    const remedy = 'Use the number of a clique of nvidiaCliques()';
    throw new PeerDmaError('ERR_OUT_OF_RANGE', `approval of peer-to-peer DMA failed: ${reason}. ${remedy}.`);
  }
  const signature = new TextEncoder().encode('P2P');
  return {
    id: CAP_ID_VNDR,
    body: Uint8Array.of(LENGTH, ...signature, clique << CLIQUE_SHIFT, 0),
    preferredOffsets: OFFSETS,
  };
}

/**
 * Returns the mirrors of config space in the BARs of NVIDIA's VGA controllers.
 *
 * Their drivers and ROMs use config space through BAR 0 also. Without the mirror, they find the host's BAR addresses
 * there, and not the capabilities and overrides of the guest. QEMU mirrors the same parts, for devices of class 0x0300
 * alone (`vfio_probe_nvidia_bar0_quirk`): pass none for a 3D controller.
 *
 * @param options.legacyVga adds the 256 bytes at 0x1800, which only the VGA ROM uses. Their page also has registers of
 * the GPU, whose accesses become slow. Default: false
 */
export function nvidiaConfigMirrors(options: NvidiaMirrorOptions = {}): ConfigMirror[] {
  const { legacyVga = false } = readOptions(options, ['legacyVga']);
  requireBoolean(legacyVga, '"legacyVga"');
  const whole: ConfigMirror = { bar: 0, offset: 0x88000n, msiAcknowledge: true };
  return legacyVga ? [whole, { bar: 0, offset: 0x1800n, length: 0x100n, msiAcknowledge: true }] : [whole];
}

/** Options of {@link nvidiaConfigMirrors}. */
export interface NvidiaMirrorOptions {
  /** Whether the guest runs the VGA ROM of the GPU. Default: false */
  readonly legacyVga?: boolean;
}
