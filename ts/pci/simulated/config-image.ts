/** The initial config space of a simulated device: recorded, or built from options. */
import { types } from 'node:util';
import { PeerDmaError } from '../../errors.ts';
import { requireBigint, requireNumber } from '../../number-types.ts';
import {
  AF_CAP,
  AF_CAP_FLR,
  BASE_ADDRESS_0,
  BASE_ADDRESS_SPACE_IO,
  CAPABILITY_LIST,
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_LIST_NEXT,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  COMMAND,
  COMMAND_IO,
  COMMAND_MEMORY,
  DEVICE_ID,
  EXP_DEVCAP,
  EXP_DEVCAP_FLR,
  EXP_FLAGS,
  EXP_V2_SIZEOF,
  INTERRUPT_PIN,
  MSIX_ENTRY_SIZE,
  MSIX_FLAGS,
  MSIX_FLAGS_QSIZE,
  MSIX_PBA,
  MSIX_SIZEOF,
  MSIX_TABLE,
  MSI_FLAGS,
  MSI_FLAGS_64BIT,
  MSI_FLAGS_MASKBIT,
  MSI_FLAGS_QMASK_SHIFT,
  PM_CTRL,
  PM_PMC,
  PM_SIZEOF,
  REVISION_ID,
  ROM_ADDRESS,
  STATUS,
  STATUS_CAP_LIST,
  STD_HEADER_SIZEOF,
  SUBSYSTEM_ID,
  SUBSYSTEM_VENDOR_ID,
  VENDOR_ID,
} from '../config/registers.ts';
import { typeBits } from '../config/bar-registers.ts';
import { CONFIG_LENGTHS, isConfigLength } from '../config/config-image.ts';
import { msiLength } from '../config/msi.ts';
import type { BarLayout } from './bar-layout.ts';
import { AF_CAP_TP, AF_LENGTH, PM_CTRL_NO_SOFT_RESET } from './found-capabilities.ts';
import type { SimulatedDeviceOptions, SimulatedIds, SimulatedMsix } from './options.ts';
import { valueText } from '../../value-text.ts';

/** Version 3 of power management, as in all current devices, without D1 and D2. */
const PM_VERSION = 3;
/** PCI Express: version 2 of the capability; an endpoint has type 0. */
const EXP_VERSION = 2;
/** MSI-X structures have 32-bit offsets. */
const REACH = 1n << 32n;
/** Length of conventional Advanced Features, which have function-level reset and transactions pending. */
const AF_BYTES = 6;

/**
 * Returns a copy of a recorded config space.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function recordedConfig(options: SimulatedDeviceOptions): DataView | undefined {
  const { bdf, config } = options;
  if (config === undefined) return undefined;
  if (!types.isUint8Array(config) || !isConfigLength(config.length)) {
    const text = `a config space of ${bdf} is a Uint8Array of ${CONFIG_LENGTHS}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
  }
  const recorded = new DataView(Uint8Array.from(config).buffer);
  const { ids, ...rest } = options;
  const anonymous = recorded.getUint32(VENDOR_ID, true) === 0xffffffff; // a virtual function
  if (anonymous && ids !== undefined) setIdentity(recorded, bdf, ids);
  const given: SimulatedDeviceOptions = anonymous ? rest : options;
  for (const built of ['ids', 'powerManagement', 'msi', 'msix', 'pcie', 'advancedFeatures'] as const) {
    if (given[built] !== undefined) {
      const text = `${bdf} has a recorded config space, which defines ${built}. Remove the option ${built}.`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
    }
  }
  return recorded;
}

function setIdentity(config: DataView, bdf: string, { vendor = 0x1234, device = 1 }: SimulatedIds): void {
  config.setUint16(VENDOR_ID, requireUpTo(bdf, vendor, 0xffff, 'vendor'), true);
  config.setUint16(DEVICE_ID, requireUpTo(bdf, device, 0xffff, 'device'), true);
}

function requireUpTo(bdf: string, value: number, most: number, name: string): number {
  requireNumber(value, name, bdf);
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  const text = `"${name}" of ${bdf} is 0 to ${most}, not ${valueText(value)}`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
}

/**
 * Returns config space as VFIO reports it for a new device: memory decode on, bus mastering off.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`
 * @internal
 */
export function configImage(
  options: SimulatedDeviceOptions,
  recorded: DataView | undefined,
  bars: readonly BarLayout[],
): DataView {
  const config = recorded ?? builtConfig(options, bars);
  for (const bar of bars) setBar(config, bar);
  if (options.interruptPin !== undefined) {
    const pin = config.getUint8(INTERRUPT_PIN);
    config.setUint8(INTERRUPT_PIN, options.interruptPin ? pin || 1 : 0);
  }
  return config;
}

/** Sets the address and the type bits of a BAR. */
function setBar(config: DataView, { index, kind, prefetchable, registerLength, hostAddress }: BarLayout): void {
  const at = kind === 'rom' ? ROM_ADDRESS : BASE_ADDRESS_0 + 4 * index;
  const present = kind === 'memory64' ? config.getBigUint64(at, true) : BigInt(config.getUint32(at, true));
  const address = hostAddress ?? present & -registerLength;
  const type = kind === 'io' ? BASE_ADDRESS_SPACE_IO : typeBits({ kind, prefetchable });
  const value = address | BigInt(type);
  if (kind === 'memory64') config.setBigUint64(at, value, true);
  else config.setUint32(at, Number(value), true);
}

function builtConfig(options: SimulatedDeviceOptions, bars: readonly BarLayout[]): DataView {
  const { bdf, ids = {}, powerManagement, msi, msix, pcie, advancedFeatures = false } = options;
  const config = new DataView(new ArrayBuffer(pcie === undefined ? CFG_SPACE_SIZE : CFG_SPACE_EXP_SIZE));
  const number = (value: number, most: number, name: string): number => requireUpTo(bdf, value, most, name);
  setIdentity(config, bdf, ids);
  const revision = number(ids.revision ?? 0, 0xff, 'revision');
  config.setUint32(REVISION_ID, number(ids.class ?? 0xff0000, 0xffffff, 'class') * 256 + revision, true);
  config.setUint16(SUBSYSTEM_VENDOR_ID, number(ids.subsystemVendor ?? 0, 0xffff, 'subsystemVendor'), true);
  config.setUint16(SUBSYSTEM_ID, number(ids.subsystem ?? 0, 0xffff, 'subsystem'), true);
  const io = bars.some(({ kind }) => kind === 'io') ? COMMAND_IO : 0;
  const memory = bars.some(({ kind }) => kind !== 'io') ? COMMAND_MEMORY : 0;
  config.setUint16(COMMAND, io | memory, true);

  let link = CAPABILITY_LIST;
  let free = STD_HEADER_SIZEOF;
  const add = (id: number, length: number): number => {
    const at = free;
    config.setUint8(link, at);
    config.setUint16(STATUS, STATUS_CAP_LIST, true);
    config.setUint8(at, id);
    link = at + CAP_LIST_NEXT;
    free = at + Math.ceil(length / 4) * 4;
    return at;
  };
  if (powerManagement !== undefined) {
    const at = add(CAP_ID_PM, PM_SIZEOF);
    config.setUint16(at + PM_PMC, PM_VERSION, true);
    config.setUint16(at + PM_CTRL, powerManagement.noSoftReset === true ? PM_CTRL_NO_SOFT_RESET : 0, true);
  }
  if (msi !== undefined) {
    const { vectors = 1, address64 = true, masking = false } = msi;
    requireNumber(vectors, 'vectors', bdf);
    const messages = [1, 2, 4, 8, 16, 32].indexOf(vectors);
    if (messages < 0) {
      const text = `${bdf} has 1, 2, 4, 8, 16 or 32 vectors of MSI, not ${valueText(vectors)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
    }
    const features = (address64 ? MSI_FLAGS_64BIT : 0) | (masking ? MSI_FLAGS_MASKBIT : 0);
    const at = add(CAP_ID_MSI, msiLength(features));
    config.setUint16(at + MSI_FLAGS, features | (messages << MSI_FLAGS_QMASK_SHIFT), true);
  }
  if (msix !== undefined) {
    const { bar, table, pending } = checkMsixLocation(bdf, msix, bars);
    const at = add(CAP_ID_MSIX, MSIX_SIZEOF);
    config.setUint16(at + MSIX_FLAGS, msix.vectors - 1, true);
    config.setUint32(at + MSIX_TABLE, Number(table) + bar, true);
    config.setUint32(at + MSIX_PBA, Number(pending) + bar, true);
  }
  if (pcie !== undefined) {
    const at = add(CAP_ID_EXP, EXP_V2_SIZEOF);
    config.setUint16(at + EXP_FLAGS, EXP_VERSION, true);
    config.setUint32(at + EXP_DEVCAP, pcie.flr === false ? 0 : EXP_DEVCAP_FLR, true);
  }
  if (advancedFeatures) {
    const at = add(CAP_ID_AF, AF_BYTES);
    config.setUint8(at + AF_LENGTH, AF_BYTES);
    config.setUint8(at + AF_CAP, AF_CAP_TP | AF_CAP_FLR);
  }
  return config;
}

/** Checks the location of the table and of the pending bits. */
function checkMsixLocation(
  bdf: string,
  { vectors, bar, tableOffset = 0n, pendingOffset }: SimulatedMsix,
  bars: readonly BarLayout[],
): { bar: number; table: bigint; pending: bigint } {
  const fail = (code: 'ERR_INVALID_ARGUMENT' | 'ERR_UNALIGNED' | 'ERR_OUT_OF_RANGE', problem: string) =>
    new PeerDmaError(code, `the MSI-X table of ${bdf} is invalid: ${problem}`, { bdf });
  requireNumber(vectors, 'vectors', bdf);
  requireNumber(bar, 'bar', bdf);
  if (!Number.isInteger(vectors) || vectors < 1 || vectors > MSIX_FLAGS_QSIZE + 1) {
    throw fail('ERR_INVALID_ARGUMENT', `it has 1 to 2048 vectors, not ${valueText(vectors)}`);
  }
  const holder = bars.find(({ index, kind }) => index === bar && (kind === 'memory32' || kind === 'memory64'));
  if (holder === undefined)
    throw fail('ERR_INVALID_ARGUMENT', `the BAR that holds it is a memory BAR of the device, not ${valueText(bar)}`);
  requireBigint(tableOffset, 'tableOffset', bdf);
  requireBigint(pendingOffset ?? 0n, 'pendingOffset', bdf);
  const tableEnd = tableOffset + BigInt(vectors * MSIX_ENTRY_SIZE);
  const pending = pendingOffset ?? tableEnd;
  // One bit a vector, in words of 64.
  const pendingEnd = pending + BigInt(Math.ceil(vectors / 64) * 8);
  for (const [start, end] of [
    [tableOffset, tableEnd],
    [pending, pendingEnd],
  ] as const) {
    const most = holder.length < REACH ? holder.length : REACH;
    if (start < 0n || end > most)
      throw fail('ERR_OUT_OF_RANGE', `it has to lie in the first ${most} bytes of BAR ${bar}`);
    if (start % 8n !== 0n) throw fail('ERR_UNALIGNED', `${start} is not a multiple of 8`);
  }
  return { bar, table: tableOffset, pending };
}
