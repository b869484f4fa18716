/**
 * Replies of a back end, and their checks.
 */
import { PeerDmaError } from '../errors.ts';
import type { OwnedDescriptor } from '../owned-descriptor.ts';
import type { LimitedMessage } from '../unix-socket.ts';
import { HEADER, decodeHeader } from './message.ts';
import { SIZES } from './payloads.ts';
import { FLAGS, REQUESTS, type RequestName } from './requests.ts';

/** @internal */
export interface Reply {
  readonly payload: Uint8Array;
  /** Owned by the receiver. */
  readonly descriptor: OwnedDescriptor | undefined;
}

/** The replies of one exchange: one for each request, in order. @internal */
export interface ExpectedReplies {
  readonly requests: readonly RequestName[];
  /** Bytes of each payload. */
  readonly size: number;
  /** Sizes of the payload of a single reply that reports an error. Default: none */
  readonly errorSizes?: readonly number[];
  /** Whether a descriptor comes with the replies. Default: no */
  readonly hasDescriptor?: boolean;
}

/** Confirmations, or replies of a single number. @internal */
export function acknowledgements(requests: readonly RequestName[]): ExpectedReplies {
  return { requests, size: SIZES.u64 };
}

/**
 * Reads the rest of the replies of an exchange.
 *
 * @param first the header of the first reply
 * @param expected `undefined` if no exchange runs
 * @param receive receives bytes; `held` is the number of descriptors that came before
 * @throws {Error} for invalid replies; what `receive` throws. All descriptors are closed then
 * @internal
 */
export async function readReplies(
  first: LimitedMessage,
  expected: ExpectedReplies | undefined,
  receive: (length: number, held: number) => Promise<LimitedMessage | undefined>,
): Promise<Reply[]> {
  const descriptors = [...first.descriptors];
  try {
    if (expected === undefined) throw new Error('no request is pending');
    const { requests, size, errorSizes = [], hasDescriptor = false } = expected;
    const errorSize = errorSizes.find((each) => each === decodeHeader(first.bytes).size);
    checkHeader(first.bytes, requests[0], errorSize ?? size);
    const restLength = errorSize ?? requests.length * (HEADER + size) - HEADER;
    const rest = restLength === 0 ? undefined : await receive(restLength, descriptors.length);
    descriptors.push(...(rest?.descriptors ?? []));
    if (restLength > 0 && rest === undefined) throw new PeerDmaError('ERR_PEER_CLOSED', 'it has ended within a reply');
    const hadMore = first.hadMore || rest?.hadMore === true;
    if (hadMore || descriptors.length !== (hasDescriptor ? 1 : 0)) {
      const count = hadMore ? 'too many' : descriptors.length;
      throw new Error(`${count} descriptors came with the reply to ${requests[0]}`);
    }
    return requests.map((request, index) => {
      const at = index * (HEADER + size);
      if (index > 0) checkHeader(rest?.bytes.subarray(at - HEADER), request, size);
      return { payload: rest?.bytes.subarray(at, at + size) ?? new Uint8Array(), descriptor: descriptors[0] };
    });
  } catch (error) {
    for (const descriptor of descriptors) descriptor.close();
    throw error;
  }
}

function checkHeader(bytes: Uint8Array = new Uint8Array(), request: RequestName | undefined, size: number): void {
  const header = decodeHeader(bytes);
  if (request === undefined || header.request !== REQUESTS[request]) {
    throw new Error(`a reply to the request ${header.request} was sent, not to ${request}`);
  }
  if ((header.flags & FLAGS.versionMask) !== FLAGS.version || (header.flags & FLAGS.reply) === 0) {
    throw new Error(`the flags of the reply to ${request} are ${header.flags}`);
  }
  if (header.size !== size) throw new Error(`the reply to ${request} has ${header.size} bytes, not ${size}`);
}
