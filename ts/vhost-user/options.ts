/**
 * The options of a connection to a back end.
 */
import { readArray, readOptions, requireUnsigned } from '../arguments.ts';
import { type AbortOptions, type AbortSignalLike, requireSignal } from '../abort.ts';
import { PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import { PROTOCOL } from './requests.ts';

/** A protocol feature that a {@link VhostUserTarget} uses if the back end has it. */
export type VhostUserProtocolFeature =
  'MQ' | 'REPLY_ACK' | 'CONFIG' | 'INFLIGHT_SHMFD' | 'RESET_DEVICE' | 'CONFIGURE_MEM_SLOTS';

/** Options of {@link VhostUserTarget.connect}. */
export interface VhostUserOptions extends AbortOptions {
  /** Name in errors and in `GuestMemory.inspect()`. Default: the path of the socket */
  readonly name?: string;
  /**
   * The features of the device that the driver accepts, as bits.
   *
   * {@link VhostUserTarget.setFeatures} changes them. Default: `VIRTIO_F_VERSION_1` (bit 32) if it is offered
   */
  readonly features?: bigint;
  /** The time in which the back end replies, in milliseconds: 1 to 2^31 - 1. Default: 10,000 */
  readonly timeout?: number;
  /**
   * Connects again when the back end has ended the connection.
   *
   * It is the time before each attempt, in milliseconds: 1 to 2^31 - 1. Memory and queues are set up again then.
   * Default: does not connect again
   */
  readonly reconnect?: number;
  /** Protocol features that are not used though the back end may offer them. Default: none */
  readonly withoutProtocolFeatures?: readonly VhostUserProtocolFeature[];
}

/** @internal */
export interface Settings {
  readonly name: string;
  readonly features: bigint | undefined;
  readonly timeout: number;
  readonly reconnect: number | undefined;
  /** Protocol features to use if the back end has them. */
  readonly protocol: bigint;
  readonly signal: AbortSignalLike | undefined;
}

const NAMES = ['name', 'features', 'timeout', 'reconnect', 'withoutProtocolFeatures', 'signal'] as const;
const DEFAULT_TIMEOUT = 10_000;
const MAX_MILLISECONDS = 2 ** 31 - 1;

/**
 * Checks and copies the options of a caller.
 *
 * @param defaultName the name without that option
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 * @internal
 */
export function readSettings(options: VhostUserOptions, defaultName: string): Settings {
  const given = readOptions(options, NAMES);
  const { name = defaultName, features, timeout = DEFAULT_TIMEOUT, reconnect, signal } = given;
  if (typeof name !== 'string' || name === '') {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the name of a back end is a string, not ${valueText(name)}`);
  }
  if (features !== undefined) requireUnsigned(features, 'features');
  requireMilliseconds(timeout, 'timeout');
  if (reconnect !== undefined) requireMilliseconds(reconnect, 'reconnect');
  const without = readArray(given.withoutProtocolFeatures ?? [], 'withoutProtocolFeatures');
  let protocol = Object.values(PROTOCOL).reduce((bits, bit) => bits | bit, 0n);
  for (const feature of without) {
    if (typeof feature !== 'string' || !Object.hasOwn(PROTOCOL, feature)) {
      const known = Object.keys(PROTOCOL).join(', ');
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a protocol feature is ${known}, not ${valueText(feature)}`);
    }
    protocol &= ~PROTOCOL[feature];
  }
  // Only a back end that replaces another one reads the buffer.
  if (reconnect === undefined) protocol &= ~PROTOCOL.INFLIGHT_SHMFD;
  return { name, features, timeout, reconnect, protocol, signal: requireSignal(signal) };
}

function requireMilliseconds(value: number, name: string): void {
  requireNumber(value, name);
  if (Number.isInteger(value) && value >= 1 && value <= MAX_MILLISECONDS) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is 1 to 2^31 - 1 milliseconds, not ${valueText(value)}`);
}
