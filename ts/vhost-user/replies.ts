/**
 * Replies of a back end, and their checks.
 */
import { PeerDmaError } from '../errors.ts';
import type { OwnedDescriptor } from '../owned-descriptor.ts';
import type { ReceivedMessage } from '../unix-socket.ts';
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
  /** Whether a single reply without payload, which reports an error, is valid, too. Default: no */
  readonly mayBeEmpty?: boolean;
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
 * @throws {Error} for invalid replies; what `receive` throws. All descriptors are closed then
 * @internal
 */
export async function readReplies(
  first: ReceivedMessage,
  expected: ExpectedReplies | undefined,
  receive: (length: number) => Promise<ReceivedMessage | undefined>,
): Promise<Reply[]> {
  const descriptors = [...first.descriptors];
  try {
    if (expected === undefined) throw new Error('no request is pending');
    const { requests, size, mayBeEmpty = false, hasDescriptor = false } = expected;
    const isEmpty = mayBeEmpty && decodeHeader(first.bytes).size === 0;
    checkHeader(first.bytes, requests[0], isEmpty ? 0 : size);
    const restLength = isEmpty ? 0 : requests.length * (HEADER + size) - HEADER;
    const rest = restLength === 0 ? undefined : await receive(restLength);
    descriptors.push(...(rest?.descriptors ?? []));
    if (restLength > 0 && rest === undefined) throw new PeerDmaError('ERR_PEER_CLOSED', 'it has ended within a reply');
    if (descriptors.length !== (hasDescriptor ? 1 : 0)) {
      throw new Error(`${descriptors.length} descriptors came with the reply to ${requests[0]}`);
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
