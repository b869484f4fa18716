/**
 * Small guests of the benchmarks: firmware, which a processor executes from its power-on state.
 */
import { readFileSync } from 'node:fs';
import { AddressRange, GuestMemory } from '../ts/index.ts';
import { VirtualMachine } from '../ts/kvm.ts';

/** The end of the first 4 GiB, where processors begin. */
const FIRMWARE: AddressRange = AddressRange.of(0xffff_0000n, 0x1_0000n);
/** RAM from address 0 on. */
export const RAM_LENGTH: bigint = 16n << 20n;

/** A guest before its start. Its machine is closed before its memory. */
export interface FirmwareGuest {
  readonly memory: GuestMemory;
  readonly vm: VirtualMachine;
}

/** Creates a guest with one processor. @param path the firmware, as {@link compileFirmware} makes it */
export async function loadFirmware(path: string): Promise<FirmwareGuest> {
  const { start, length } = FIRMWARE;
  const memory = await GuestMemory.create({
    ram: [
      { start: 0n, length: RAM_LENGTH },
      { start, length },
    ],
  });
  memory.write(start, readFileSync(path));
  return { memory, vm: await VirtualMachine.create({ memory }) };
}
