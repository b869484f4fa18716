/** Guest addresses of PCI functions: bus, device and function number. */
import { PeerDmaError } from '../../errors.ts';
import { valueText } from '../../value-text.ts';

/**
 * The number of a function: bus in bits 15 to 8, device in bits 7 to 3, function in bits 2 to 0.
 *
 * Mechanism #1 and ECAM have it. PCI Local Bus Specification 3.0, 3.2.2.3.2; PCI Express Base Specification, 7.2.2.
 *
 * @internal
 */
export type FunctionAddress = number;

const FORMAT = /^([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;
/** Bits of the function number. */
const FUNCTION_MASK = 0x7;

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function parseAddress(text: string): FunctionAddress {
  const [, bus, device, func] = (typeof text === 'string' && FORMAT.exec(text)) || [];
  if (bus !== undefined && device !== undefined && func !== undefined) {
    return (parseInt(bus, 16) << 8) | (parseInt(device, 16) << 3) | Number(func);
  }
  const expected = 'the address of a function in a guest is bus, device and function, such as 00:01.0';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${expected}, not ${valueText(text)}`);
}

/** `00:01.0` @internal */
export function addressText(address: FunctionAddress): string {
  const digits = (value: number): string => value.toString(16).padStart(2, '0');
  return `${digits(busOf(address))}:${digits((address >> 3) & 0x1f)}.${address & FUNCTION_MASK}`;
}

/** @internal */
export function busOf(address: FunctionAddress): number {
  return address >> 8;
}

/** Whether it is function 0 of its device. @internal */
export function isFunction0(address: FunctionAddress): boolean {
  return (address & FUNCTION_MASK) === 0;
}

/** Functions 1 to 7 of the same device. @internal */
export function otherFunctions(function0: FunctionAddress): FunctionAddress[] {
  return Array.from({ length: FUNCTION_MASK }, (_, index) => function0 + 1 + index);
}
