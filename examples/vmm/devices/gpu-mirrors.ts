/**
 * Selects the devices that repeat their config space in a BAR: VGA controllers of NVIDIA.
 */
import { type ConfigMirror, type PhysicalFunction, nvidiaConfigMirrors } from 'peerdma';

const NVIDIA = 0x10de;
/** A VGA controller: base class and subclass (PCI Code and ID Assignment Specification). */
const VGA = 0x0300;
/** Offsets in config space. */
const VENDOR_ID = 0;
const CLASS = 0x0a;

/** Returns the mirrors of a device; none for most. */
export function gpuMirrors({ config }: Pick<PhysicalFunction, 'config'>): ConfigMirror[] {
  const header = Buffer.from(config.read(0n, 16));
  const isVga = header.readUInt16LE(VENDOR_ID) === NVIDIA && header.readUInt16LE(CLASS) === VGA;
  return isVga ? nvidiaConfigMirrors() : [];
}
