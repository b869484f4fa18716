/**
 * The record of started requests. A back end writes it for the one that replaces it.
 */
import type { OwnedDescriptor } from '../owned-descriptor.ts';
import type { Message } from './message.ts';
import { type Inflight, SIZES, decodeInflight, inflight, u64 } from './payloads.ts';
import { NO_DESCRIPTOR } from './requests.ts';
import type { Session } from './session.ts';

/** The most descriptors in a queue that is recorded (`VIRTQUEUE_MAX_SIZE` of QEMU). @internal */
export const RECORDED_QUEUE_SIZE = 1024;

/** @internal */
export class InflightBuffer {
  #buffer: { readonly description: Inflight; readonly descriptor: OwnedDescriptor } | undefined;
  /** The session whose back end has it. */
  #sentTo: Session | undefined;

  /**
   * Passes the buffer to a back end, before its first queue starts. The first back end allocates it.
   *
   * @throws {PeerDmaError} as {@link Session.ask}
   */
  async sendTo(session: Session, queues: number): Promise<void> {
    if (this.#sentTo === session) return;
    this.#buffer ??= await allocate(session, queues);
    const { description, descriptor } = this.#buffer;
    // DPDK allocates a queue at the first message that names it, and attaches the record only to those.
    const named = Array.from({ length: queues }, (_, index) => callOff(index));
    await session.demand([
      ...named,
      { request: 'SET_INFLIGHT_FD', payload: inflight(description), descriptors: [descriptor.fd] },
    ]);
    this.#sentTo = session;
  }

  /** Releases the buffer, when no request is in flight: the next queue starts with an empty one. */
  release(): void {
    this.#buffer?.descriptor.close();
    this.#buffer = undefined;
    this.#sentTo = undefined;
  }
}

/** A message for a queue that has no other effect: the back end does not signal it. */
function callOff(index: number): Message {
  return { request: 'SET_VRING_CALL', payload: u64(BigInt(index) | NO_DESCRIPTOR) };
}

async function allocate(
  session: Session,
  queues: number,
): Promise<{ description: Inflight; descriptor: OwnedDescriptor }> {
  const wanted = { length: 0n, offset: 0n, queues, queueSize: RECORDED_QUEUE_SIZE };
  const message = { request: 'GET_INFLIGHT_FD', payload: inflight(wanted) } as const;
  const { payload, descriptor } = await session.ask(message, SIZES.inflight, { hasDescriptor: true });
  // The session has checked that there is a descriptor.
  return { description: decodeInflight(payload), descriptor: descriptor as OwnedDescriptor };
}
