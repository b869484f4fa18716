/**
 * The host bridge as a function of its bus, at 00:00.0.
 *
 * Linux accepts configuration mechanism #1 only if bus 0 has a host bridge (`pci_sanity_check` in
 * arch/x86/pci/direct.c).
 */
import type { GuestPciFunction } from './guest-pci-function.ts';

/**
 * Vendor and device: the PCIe host bridge of virtual machines.
 *
 * Red Hat assigned it: QEMU, docs/specs/pci-ids.rst; Linux `PCI_VENDOR_ID_REDHAT`.
 */
const IDS = 0x0008_1b36;
/** Subsystem of QEMU's virtual devices (QEMU, docs/specs/pci-ids.rst). */
const SUBSYSTEM = 0x1100_1af4;
/** Class 0x06 (bridge), subclass 0x00 (host), revision 0. PCI Local Bus Specification 3.0, D.7. */
const CLASS = 0x0600_0000;

/** Dwords of its header that are not zero, by their offset. */
const DWORDS: ReadonlyMap<number, number> = new Map([
  [0x00, IDS],
  [0x08, CLASS],
  [0x2c, SUBSYSTEM],
]);

/** Bytes: a conventional function, without capabilities. */
const LENGTH = 0x100;

/** Registers that are all read-only: it has no BARs, no interrupts, and no states. @internal */
export class HostBridgeFunction implements GuestPciFunction {
  configRead(offset: number, size: number): number {
    const mask = 2 ** (8 * size) - 1;
    if (offset >= LENGTH) return mask;
    const dword = DWORDS.get(offset & ~3) ?? 0;
    return ((dword >>> (8 * (offset & 3))) & mask) >>> 0;
  }

  configWrite(): void {}
}
