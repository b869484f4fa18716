/**
 * A message on the socket: a header of 12 bytes and a payload, in the byte order of the machine.
 */
import { MESSAGE_WORDS, NO_DESCRIPTOR } from '../unix-socket.ts';
import { FLAGS, REQUESTS, type RequestName } from './requests.ts';

/** A request to a back end. @internal */
export interface Message {
  readonly request: RequestName;
  readonly payload?: Uint8Array;
  /** Descriptors of this process, which the back end receives copies of. */
  readonly descriptors?: readonly number[];
}

/** The header of a reply. @internal */
export interface Header {
  readonly request: number;
  readonly flags: number;
  /** Bytes of the payload. */
  readonly size: number;
}

/** Bytes of a header. @internal */
export const HEADER = 12;

/**
 * Encodes messages one after the other.
 *
 * @param needsReply whether the back end has to confirm each
 * @internal
 */
export function encodeMessages(messages: readonly Message[], needsReply: boolean): Uint8Array {
  const bytes = new Uint8Array(messages.reduce((length, message) => length + lengthOf(message), 0));
  const view = viewOf(bytes);
  let at = 0;
  for (const message of messages) {
    encodeAt(bytes, view, at, message, needsReply);
    at += lengthOf(message);
  }
  return bytes;
}

/**
 * The lengths and descriptors of messages, for `sendMessages`.
 *
 * @param messages with up to one descriptor each
 * @internal
 */
export function messageWords(messages: readonly Message[]): BigUint64Array {
  const words = new BigUint64Array(messages.length * MESSAGE_WORDS);
  for (const [index, message] of messages.entries()) {
    const [descriptor] = message.descriptors ?? [];
    words[index * MESSAGE_WORDS] = BigInt(lengthOf(message));
    words[index * MESSAGE_WORDS + 1] = descriptor === undefined ? NO_DESCRIPTOR : BigInt(descriptor);
  }
  return words;
}

function encodeAt(bytes: Uint8Array, view: DataView, at: number, message: Message, needsReply: boolean): void {
  const { request, payload } = message;
  view.setUint32(at, REQUESTS[request], true);
  view.setUint32(at + 4, FLAGS.version | (needsReply ? FLAGS.needReply : 0), true);
  view.setUint32(at + 8, payload?.length ?? 0, true);
  if (payload !== undefined) bytes.set(payload, at + HEADER);
}

function lengthOf({ payload }: Message): number {
  return HEADER + (payload?.length ?? 0);
}

/** Reads a header. @internal */
export function decodeHeader(bytes: Uint8Array): Header {
  const view = viewOf(bytes);
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    size: view.getUint32(8, true),
  };
}

/** @internal */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
