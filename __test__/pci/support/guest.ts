/** Config space accesses of a guest's firmware. */
import type { AssignedDevice } from '../../../ts/index.ts';

export const COMMAND = 0x04;
export const MEMORY = 0x2;
export const MASTER = 0x4;

/** The register of a BAR; 6 is the ROM. */
export function barRegister(bar: number): number {
  return bar === 6 ? 0x30 : 0x10 + 4 * bar;
}

/** Writes the address of a 64-bit BAR, the lower half first. */
export async function writeBar64(device: AssignedDevice, bar: number, gpa: bigint): Promise<void> {
  await device.configWrite(barRegister(bar), 4, Number(gpa & 0xffff_ffffn));
  await device.configWrite(barRegister(bar) + 4, 4, Number(gpa >> 32n));
}

export async function writeBar32(device: AssignedDevice, bar: number, gpa: bigint): Promise<void> {
  await device.configWrite(barRegister(bar), 4, Number(gpa));
}

export async function command(device: AssignedDevice, value: number): Promise<void> {
  await device.configWrite(COMMAND, 2, value);
}

/** The address in the registers of a 64-bit BAR. */
export function readBar64(device: AssignedDevice, bar: number): bigint {
  const low = BigInt(device.configRead(barRegister(bar), 4)) & ~0xfn;
  return low | (BigInt(device.configRead(barRegister(bar) + 4, 4)) << 32n);
}

/** Returns the offset of a capability in the guest's chain. */
export function capability(device: AssignedDevice, id: number): number {
  for (let at = device.configRead(0x34, 1); at !== 0; at = device.configRead(at + 1, 1)) {
    if (device.configRead(at, 1) === id) return at;
  }
  throw new Error(`no capability ${id}`);
}
