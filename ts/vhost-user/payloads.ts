/**
 * The payloads of messages.
 */
import { viewOf } from './message.ts';

/** Memory of the guest that a back end maps. @internal */
export interface MemoryRegion {
  /** Guest-physical address. The protocol's "user address" of the region is the same. */
  readonly start: bigint;
  /** Bytes. */
  readonly length: bigint;
  /** Bytes from the start of the file. */
  readonly offset: bigint;
}

/** The three areas of a virtqueue, as guest-physical addresses. @internal */
export interface RingAddresses {
  readonly descriptorTable: bigint;
  readonly availableRing: bigint;
  readonly usedRing: bigint;
}

/** Bytes of the payloads of fixed size. @internal */
export const SIZES = { u64: 8, state: 8, inflight: 24 } as const;

/** Bytes before the contents of config space. @internal */
export const CONFIG_PREFIX = 12;

/** @internal */
export function u64(value: bigint): Uint8Array {
  return words([value]);
}

/** @internal */
export function decodeU64(payload: Uint8Array, at = 0): bigint {
  return viewOf(payload).getBigUint64(at, true);
}

/** The state of a queue: its index and a number. @internal */
export function queueState(index: number, value: number): Uint8Array {
  return halfWords([index, value]);
}

/** @internal */
export function decodeQueueState(payload: Uint8Array): { index: number; value: number } {
  const view = viewOf(payload);
  return { index: view.getUint32(0, true), value: view.getUint32(4, true) };
}

/** @internal */
export function ringAddresses(index: number, { descriptorTable, availableRing, usedRing }: RingAddresses): Uint8Array {
  const flags = 0;
  const log = 0n;
  return joined(halfWords([index, flags]), words([descriptorTable, usedRing, availableRing, log]));
}

/** One region, for ADD_MEM_REG and REM_MEM_REG. @internal */
export function singleRegion({ start, length, offset }: MemoryRegion): Uint8Array {
  const payload = new BigUint64Array(5); // the first word is padding
  payload[1] = start;
  payload[2] = length;
  payload[3] = start;
  payload[4] = offset;
  return new Uint8Array(payload.buffer);
}

/** All regions, for SET_MEM_TABLE. @internal */
export function regionTable(regions: readonly MemoryRegion[]): Uint8Array {
  return joined(halfWords([regions.length, 0]), words(regions.flatMap(wordsOf)));
}

/** Part of config space. @param bytes its contents, or zeros in a request to read them @internal */
export function configSpace(offset: number, bytes: Uint8Array): Uint8Array {
  const flags = 0;
  return joined(halfWords([offset, bytes.length, flags]), bytes);
}

/** The buffer in which a back end records the requests that it has started. @internal */
export interface Inflight {
  /** Bytes. */
  readonly length: bigint;
  /** Bytes from the start of its file. */
  readonly offset: bigint;
  readonly queues: number;
  readonly queueSize: number;
}

/** @internal */
export function inflight({ length, offset, queues, queueSize }: Inflight): Uint8Array {
  const padding = 0n;
  const payload = words([length, offset, padding]);
  const view = viewOf(payload);
  view.setUint16(16, queues, true);
  view.setUint16(18, queueSize, true);
  return payload;
}

/** @internal */
export function decodeInflight(payload: Uint8Array): Inflight {
  const view = viewOf(payload);
  return {
    length: view.getBigUint64(0, true),
    offset: view.getBigUint64(8, true),
    queues: view.getUint16(16, true),
    queueSize: view.getUint16(18, true),
  };
}

function wordsOf({ start, length, offset }: MemoryRegion): bigint[] {
  return [start, length, start, offset];
}

function words(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer);
}

function halfWords(values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}
