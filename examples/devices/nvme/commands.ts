/**
 * Commands of NVMe, as entries of a submission queue, and their completions.
 *
 * NVM Express Base Specification 2.1, 4.1.1 (submission queue entry), 4.2 (completion queue entry), 4.3.1 (PRP
 * entries); NVM Command Set Specification 1.1.
 */

/** Bytes of an entry. */
export const SUBMISSION_ENTRY = 64;
export const COMPLETION_ENTRY = 16;
export const PAGE = 4096n;

export interface Command {
  readonly opcode: number;
  /** 0 for a command without a namespace. */
  readonly namespace?: number;
  /** Guest addresses of the data: the first byte, and the start of the second page if there is one. */
  readonly data?: readonly [prp1: bigint, prp2: bigint];
  /** Command dwords 10 to 12. */
  readonly dwords?: readonly [number, number?, number?];
}

/** Admin commands (5.1, 5.2). */
const DELETE_SUBMISSION_QUEUE = 0x00;
const CREATE_SUBMISSION_QUEUE = 0x01;
const DELETE_COMPLETION_QUEUE = 0x04;
const CREATE_COMPLETION_QUEUE = 0x05;
const IDENTIFY = 0x06;
const SET_FEATURES = 0x09;
/** Commands of the NVM command set (3.3.4 and 3.3.6 there). */
const WRITE = 0x01;
const READ = 0x02;

/** The structures that Identify returns (5.1.13). */
const IDENTIFY_NAMESPACE = 0x00;
const IDENTIFY_CONTROLLER = 0x01;

/** The feature Number of Queues. */
const NUMBER_OF_QUEUES = 0x07;

/** Flags of a new queue: contiguous memory; completions interrupt (5.2.1 and 5.2.2). */
const CONTIGUOUS = 0x1;
const INTERRUPTS = 0x2;

/** Fills a page with the identity of the controller. */
export function identifyController(page: bigint): Command {
  return { opcode: IDENTIFY, data: [page, 0n], dwords: [IDENTIFY_CONTROLLER] };
}

/** Fills a page with the identity of a namespace. */
export function identifyNamespace(namespace: number, page: bigint): Command {
  return { opcode: IDENTIFY, namespace, data: [page, 0n], dwords: [IDENTIFY_NAMESPACE] };
}

/** Requests one pair of queues beside those for administration. */
export function oneQueuePair(): Command {
  return { opcode: SET_FEATURES, dwords: [NUMBER_OF_QUEUES, 0] };
}

export function createCompletionQueue(queue: number, gpa: bigint, entries: number, vector: number): Command {
  const dwords = [((entries - 1) << 16) | queue, (vector << 16) | INTERRUPTS | CONTIGUOUS] as const;
  return { opcode: CREATE_COMPLETION_QUEUE, data: [gpa, 0n], dwords };
}

/** Its completions are in the completion queue of the same number. */
export function createSubmissionQueue(queue: number, gpa: bigint, entries: number): Command {
  const dwords = [((entries - 1) << 16) | queue, (queue << 16) | CONTIGUOUS] as const;
  return { opcode: CREATE_SUBMISSION_QUEUE, data: [gpa, 0n], dwords };
}

export function deleteCompletionQueue(queue: number): Command {
  return { opcode: DELETE_COMPLETION_QUEUE, dwords: [queue] };
}

export function deleteSubmissionQueue(queue: number): Command {
  return { opcode: DELETE_SUBMISSION_QUEUE, dwords: [queue] };
}

/** Blocks of a namespace, and their address in guest memory. */
export interface Transfer {
  readonly namespace: number;
  /** The first block. */
  readonly block: bigint;
  readonly count: number;
  /** Length of all of them in bytes. */
  readonly length: number;
  /** A guest address, multiple of 4. */
  readonly gpa: bigint;
}

/** From blocks to memory. */
export function read(transfer: Transfer): Command {
  return move(READ, transfer);
}

/** From memory to blocks. */
export function write(transfer: Transfer): Command {
  return move(WRITE, transfer);
}

function move(opcode: number, { namespace, block, count, length, gpa }: Transfer): Command {
  const dwords = [Number(block & 0xffff_ffffn), Number(block >> 32n), count - 1] as const;
  return { opcode, namespace, data: pages(gpa, length), dwords };
}

/** @throws {RangeError} for a transfer that needs a list of pages, which this driver does not support */
function pages(gpa: bigint, length: number): [bigint, bigint] {
  const next = (gpa / PAGE + 1n) * PAGE;
  const end = gpa + BigInt(length);
  if (gpa % 4n !== 0n) throw new RangeError(`data is at a multiple of 4, not at 0x${gpa.toString(16)}`);
  if (length <= 0 || end > next + PAGE) throw new RangeError(`${length} bytes are not in one page, or in two`);
  return [gpa, end > next ? next : 0n];
}

/** The entry of a submission queue. The completion has its identifier. */
export function encode({ opcode, namespace = 0, data = [0n, 0n], dwords = [0] }: Command, id: number): Uint8Array {
  const entry = new DataView(new ArrayBuffer(SUBMISSION_ENTRY));
  entry.setUint32(0, (id << 16) | opcode, true);
  entry.setUint32(4, namespace, true);
  entry.setBigUint64(24, data[0], true);
  entry.setBigUint64(32, data[1], true);
  for (const [index, dword = 0] of dwords.entries()) entry.setUint32(40 + 4 * index, dword, true);
  return new Uint8Array(entry.buffer);
}

export interface Completion {
  /** The identifier of the command. */
  readonly id: number;
  /** Toggles each time the controller wraps around, which marks new entries (4.2.4). */
  readonly phase: boolean;
  readonly statusType: number;
  readonly status: number;
}

export function decode(entry: Uint8Array): Completion {
  const last = new DataView(entry.buffer, entry.byteOffset).getUint32(12, true);
  return {
    id: last & 0xffff,
    phase: (last & 0x1_0000) !== 0,
    status: (last >>> 17) & 0xff,
    statusType: (last >>> 25) & 0x7,
  };
}

/** A command that the controller rejected or failed. The numbers are those of 4.2.3 in the specification. */
export class NvmeCommandError extends Error {
  override readonly name = 'NvmeCommandError';
  readonly statusType: number;
  readonly status: number;

  constructor({ opcode }: Command, { statusType, status }: Completion) {
    super(`the controller refused command ${hex(opcode)}: status type ${hex(statusType)}, status ${hex(status)}`);
    this.statusType = statusType;
    this.status = status;
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
