/**
 * The writable bits of config space: those with an effect, and those that VFIO stores for its user.
 *
 * All other bits are read-only, a simplification for capabilities that are not emulated.
 */
import {
  BASE_ADDRESS_0,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_PM,
  CFG_SPACE_SIZE,
  COMMAND,
  COMMAND_INTX_DISABLE,
  COMMAND_IO,
  COMMAND_MASTER,
  COMMAND_MEMORY,
  EXP_DEVCTL,
  EXP_DEVCTL_BCR_FLR,
  EXP_FLAGS,
  EXP_V2_SIZEOF,
  INTERRUPT_LINE,
  MSI_ADDRESS_LO,
  MSI_FLAGS,
  MSI_FLAGS_64BIT,
  MSI_FLAGS_MASKBIT,
  MSI_FLAGS_QSIZE,
  PM_CTRL,
  PM_CTRL_STATE_MASK,
  ROM_ADDRESS,
  ROM_ADDRESS_ENABLE,
} from '../config/registers.ts';
import type { BarLayout } from './bar-layout.ts';
import { CACHE_LINE_SIZE, EXP_DEVCTL2, type FoundCapabilities } from './found-capabilities.ts';

/** Command: parity error response and SERR# enable (PCI Express Base Specification, 7.5.1.1.3). */
const COMMAND_ERRORS = 0x0140;
/** Device Control 2 less ARI forwarding, which VFIO drops. */
const DEVCTL2_WRITABLE = 0xffdf;

/** Returns a mask with the length of config space. @internal */
export function writableBits(bytes: DataView, capabilities: FoundCapabilities, bars: readonly BarLayout[]): DataView {
  const bits = new DataView(new ArrayBuffer(bytes.byteLength));
  const io = bars.some(({ kind }) => kind === 'io') ? COMMAND_IO : 0;
  const memory = bars.some(({ kind }) => kind !== 'io') ? COMMAND_MEMORY : 0;
  bits.setUint16(COMMAND, io | memory | COMMAND_MASTER | COMMAND_ERRORS | COMMAND_INTX_DISABLE, true);
  bits.setUint8(CACHE_LINE_SIZE, 0xff);
  bits.setUint8(INTERRUPT_LINE, 0xff);
  for (const { index, kind, registerLength } of bars) {
    const address = -registerLength;
    if (kind === 'rom') bits.setUint32(ROM_ADDRESS, Number(BigInt.asUintN(32, address)) | ROM_ADDRESS_ENABLE, true);
    else if (kind === 'memory64') bits.setBigUint64(BASE_ADDRESS_0 + 4 * index, BigInt.asUintN(64, address), true);
    else bits.setUint32(BASE_ADDRESS_0 + 4 * index, Number(BigInt.asUintN(32, address)), true);
  }
  const pm = capabilities.get(CAP_ID_PM)?.offset;
  if (pm !== undefined) bits.setUint16(pm + PM_CTRL, PM_CTRL_STATE_MASK, true);
  const msi = capabilities.get(CAP_ID_MSI)?.offset;
  if (msi !== undefined) {
    const flags = bytes.getUint16(msi + MSI_FLAGS, true);
    bits.setUint16(msi + MSI_FLAGS, MSI_FLAGS_QSIZE, true);
    bits.setUint32(msi + MSI_ADDRESS_LO, 0xfffffffc, true);
    let data = msi + MSI_ADDRESS_LO + 4;
    if ((flags & MSI_FLAGS_64BIT) !== 0) {
      bits.setUint32(data, 0xffffffff, true);
      data += 4;
    }
    bits.setUint16(data, 0xffff, true);
    if ((flags & MSI_FLAGS_MASKBIT) !== 0) bits.setUint32(data + 4, 0xffffffff, true);
  }
  const exp = capabilities.get(CAP_ID_EXP)?.offset;
  if (exp !== undefined) {
    bits.setUint16(exp + EXP_DEVCTL, 0xffff & ~EXP_DEVCTL_BCR_FLR, true);
    const version = bytes.getUint16(exp + EXP_FLAGS, true) & 0xf;
    if (version >= 2 && exp + EXP_V2_SIZEOF <= Math.min(bytes.byteLength, CFG_SPACE_SIZE))
      bits.setUint16(exp + EXP_DEVCTL2, DEVCTL2_WRITABLE, true);
  }
  return bits;
}
