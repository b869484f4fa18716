/** Accesses of a guest's processors to config space: by ports, and by ECAM. */
import { AddressRange, type PciHostBridge } from '../../../../ts/index.ts';

export const MiB = 1n << 20n;
export const GiB = 1n << 30n;
/** ECAM of two buses. */
export const ECAM: AddressRange = AddressRange.of(0xb000_0000n, 2n * MiB);
/** Windows for BARs of 32 and of 64 bits. */
export const LOW: AddressRange = AddressRange.of(0xc000_0000n, 0x2000_0000n);
export const HIGH: AddressRange = AddressRange.of(0x80_0000_0000n, 64n * GiB);

/** Config space of all functions. */
export interface ConfigSpaces {
  read(address: string, offset: number, size: number): Promise<number>;
  write(address: string, offset: number, size: number, value: number): Promise<void>;
}

/** Configuration mechanism #1. Offsets are below 256, and an access does not cross a dword. */
export function byPorts(bridge: PciHostBridge): ConfigSpaces {
  const select = async (address: string, offset: number): Promise<number> => {
    await bridge.portWrite(0xcf8, 4, (0x8000_0000 | (numberOf(address) << 8) | (offset & 0xfc)) >>> 0);
    return 0xcfc + (offset & 3);
  };
  return {
    read: async (address, offset, size) => bridge.portRead(await select(address, offset), size),
    write: async (address, offset, size, value) => bridge.portWrite(await select(address, offset), size, value),
  };
}

/** ECAM. */
export function byEcam(bridge: PciHostBridge): ConfigSpaces {
  const at = (address: string, offset: number): bigint => ecamAddress(address) + BigInt(offset);
  return {
    read: async (address, offset, size) => numberFrom(await bridge.mmioRead(at(address, offset), size)),
    write: async (address, offset, size, value) => bridge.mmioWrite(at(address, offset), bytesOf(value, size)),
  };
}

/** The guest address of a function's config space. */
export function ecamAddress(address: string): bigint {
  return ECAM.start + (BigInt(numberOf(address)) << 12n);
}

/** Bus, device and function in 16 bits. */
export function numberOf(address: string): number {
  const [bus = '', device = '', func = ''] = address.split(/[:.]/);
  return (parseInt(bus, 16) << 8) | (parseInt(device, 16) << 3) | Number(func);
}

/** Little-endian bytes. */
export function bytesOf(value: number, size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index));
}

export function numberFrom(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}

export function ones(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}

/** Writes the address of a 64-bit BAR, the lower half first, and turns memory decode on. */
export async function place64(config: ConfigSpaces, address: string, bar: number, gpa: bigint): Promise<void> {
  await config.write(address, 0x10 + 4 * bar, 4, Number(gpa & 0xffff_ffffn));
  await config.write(address, 0x14 + 4 * bar, 4, Number(gpa >> 32n));
  await config.write(address, 0x04, 2, 2);
}

/** Writes the address of a 32-bit BAR, and turns memory decode on. */
export async function place32(config: ConfigSpaces, address: string, bar: number, gpa: bigint): Promise<void> {
  await config.write(address, 0x10 + 4 * bar, 4, Number(gpa));
  await config.write(address, 0x04, 2, 2);
}
