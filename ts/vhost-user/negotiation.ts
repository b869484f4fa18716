/**
 * The start of a session: features, protocol features and limits of a back end.
 */
import { hex } from '../address-range.ts';
import { unsupported } from './errors.ts';
import type { RequestName } from './requests.ts';
import { SIZES, decodeU64, u64 } from './payloads.ts';
import { FEATURE, PROTOCOL, TABLE_REGIONS } from './requests.ts';
import type { Session } from './session.ts';

/** Features whose messages this front end does not send, and packed rings. */
const NOT_SUPPORTED = FEATURE.LOG_ALL | FEATURE.ACCESS_PLATFORM | FEATURE.RING_PACKED;

/** The agreement between a back end and this front end. @internal */
export interface Agreement {
  /** Features of the device that a driver can accept. */
  readonly deviceFeatures: bigint;
  /** Protocol features in use. */
  readonly protocol: bigint;
  /** Whether queues start disabled, and a message enables them. */
  readonly enablesQueues: boolean;
  /** The number of queues, if the back end reports it. */
  readonly queueCount: number | undefined;
  /** The most regions of memory that it maps. */
  readonly memorySlots: number;
}

/**
 * Starts a session.
 *
 * @param wanted protocol features to use where the back end has them
 * @throws {PeerDmaError} as {@link Session.ask}
 * @internal
 */
export async function negotiate(session: Session, wanted: bigint): Promise<Agreement> {
  const ask = async (request: RequestName): Promise<bigint> =>
    decodeU64((await session.ask({ request }, SIZES.u64)).payload);
  const offered = await ask('GET_FEATURES');
  const hasProtocol = (offered & FEATURE.PROTOCOL_FEATURES) !== 0n;
  let protocol = hasProtocol ? (await ask('GET_PROTOCOL_FEATURES')) & wanted : 0n;
  // Without confirmations, a region that was refused would count as added or removed.
  if ((protocol & PROTOCOL.REPLY_ACK) === 0n) protocol &= ~PROTOCOL.CONFIGURE_MEM_SLOTS;
  // The record of started requests has a fixed number of queues.
  if ((protocol & PROTOCOL.MQ) === 0n) protocol &= ~PROTOCOL.INFLIGHT_SHMFD;
  if (hasProtocol) await session.demand([{ request: 'SET_PROTOCOL_FEATURES', payload: u64(protocol) }]);
  session.confirmsEach = (protocol & PROTOCOL.REPLY_ACK) !== 0n;
  const queueCount = (protocol & PROTOCOL.MQ) === 0n ? undefined : Number(await ask('GET_QUEUE_NUM'));
  const hasSlots = (protocol & PROTOCOL.CONFIGURE_MEM_SLOTS) !== 0n;
  const memorySlots = hasSlots ? Number(await ask('GET_MAX_MEM_SLOTS')) : TABLE_REGIONS;
  await session.demand([{ request: 'SET_OWNER' }]);
  return {
    deviceFeatures: offered & ~NOT_SUPPORTED & ~FEATURE.PROTOCOL_FEATURES,
    protocol,
    enablesQueues: hasProtocol,
    queueCount,
    memorySlots,
  };
}

/**
 * Reports to the back end the features that the driver has accepted.
 *
 * @throws {PeerDmaError} `ERR_UNSUPPORTED` for features that the back end does not offer; as {@link Session.demand}
 * @internal
 */
export async function acceptFeatures(
  name: string,
  session: Session,
  { deviceFeatures, enablesQueues }: Agreement,
  features: bigint,
): Promise<void> {
  const missing = features & ~deviceFeatures;
  if (missing !== 0n) throw unsupported(name, 'accepting features', `the features ${hex(missing)}`);
  const protocol = enablesQueues ? FEATURE.PROTOCOL_FEATURES : 0n;
  await session.demand([{ request: 'SET_FEATURES', payload: u64(features | protocol) }]);
}
