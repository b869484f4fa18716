/** The connection of a device's interrupts. It has one of INTx, MSI and MSI-X, and the eventfd of each vector. */
import { rollbackFailed } from '../../dma/mapping-error.ts';
import { asError } from '../../errors.ts';
import type { DeviceInterrupts } from '../physical-function.ts';
import type { DevicePending } from './device-pending.ts';
import type { InterruptVector } from './vector.ts';

/** The vectors to connect. @internal */
export interface DesiredConnection {
  readonly kind: 'intx' | 'msi' | 'msix';
  /** The first vectors of their kind. */
  readonly vectors: readonly InterruptVector[];
  /** Whether the guest masks a vector. */
  isMasked(index: number): boolean;
}

/**
 * The eventfd of a vector.
 *
 * It is the VMM's (`event`), the one that counts while the vector is masked (`masked`), or none.
 *
 * MSI-X vectors begin with `none`, which takes neither an eventfd nor a host interrupt: the host masks the entry, and
 * the device keeps its message pending until the vector is connected. A reconnection that the device rejects also ends
 * there.
 */
type EventKind = 'event' | 'masked' | 'none';

interface Connected {
  readonly kind: DesiredConnection['kind'];
  readonly vectors: readonly InterruptVector[];
  readonly eventKinds: EventKind[];
}

/** A change of a vector's eventfd. */
interface Move {
  readonly index: number;
  readonly from: EventKind;
  readonly to: EventKind;
}

/** Options of a {@link Connection}. @internal */
export interface ConnectionOptions {
  /** Called after the pin was connected. */
  readonly onPin: () => void;
  readonly pending: DevicePending;
}

/** @internal */
export class Connection {
  readonly #device: DeviceInterrupts;
  readonly #options: ConnectionOptions;
  #connected: Connected | undefined;

  constructor(device: DeviceInterrupts, options: ConnectionOptions) {
    this.#device = device;
    this.#options = options;
  }

  get kind(): DesiredConnection['kind'] | undefined {
    return this.#connected?.kind;
  }

  /** Whether a vector of MSI-X is masked in the device, which then records its pending message. */
  isMaskedInDevice(index: number): boolean {
    return this.#connected?.kind === 'msix' && this.#connected.eventKinds[index] === 'none';
  }

  /**
   * Connects the given vectors, and disconnects all others. Applies only differences.
   *
   * @param among the vectors that may differ, if kind and number of vectors are unchanged
   * @throws {PeerDmaError} the error of the device; the previous connection is restored then, or, with
   * `ERR_ROLLBACK_FAILED`, as much of it as the device accepts
   */
  apply(desired: DesiredConnection | undefined, among?: { readonly first: number; readonly end: number }): void {
    const now = this.#connected;
    if (desired !== undefined && desired.kind === now?.kind && desired.vectors.length === now.vectors.length) {
      this.#move(now, desired, among ?? { first: 0, end: desired.vectors.length });
    } else if (desired !== undefined || now !== undefined) {
      this.#replace(desired);
    }
  }

  #replace(desired: DesiredConnection | undefined): void {
    const before = this.#connected;
    const vectors = desired?.vectors ?? [];
    const eventKinds = vectors.map((_, index) =>
      desired === undefined ? 'none' : eventKindFor(desired, index, 'none'),
    );
    // Create eventfds before disconnecting: this is the step that runs out of descriptors.
    const discard = makeEvents(vectors.map((vector, index) => [vector, eventKinds[index]]));
    try {
      if (before !== undefined) this.#disconnect(before);
    } catch (error) {
      discard();
      throw error;
    }
    if (desired === undefined) return;
    try {
      this.#connect({ kind: desired.kind, vectors, eventKinds });
    } catch (error) {
      discard();
      try {
        if (before !== undefined) this.#connect(before);
      } catch (thrown) {
        throw rollbackFailed(error, [asError(thrown)]);
      }
      throw error;
    }
  }

  /** Disconnects. Records the device's pending bits first: they may not survive disabling the kind. */
  #disconnect({ kind, vectors, eventKinds }: Connected): void {
    const maskedInDevice =
      kind === 'msix' ? [...eventKinds.keys()].filter((index) => eventKinds[index] === 'none') : [];
    const pending = this.#options.pending.among(maskedInDevice);
    this.#device.disconnect(kind);
    this.#connected = undefined;
    for (const index of pending) vectors[index]?.addPending();
  }

  #connect(wanted: Connected): void {
    const { kind, vectors, eventKinds } = wanted;
    this.#device.connect(
      kind,
      vectors.map((vector, index) => eventFor(vector, eventKinds[index])),
    );
    if (kind === 'intx') this.#preparePin();
    this.#connected = wanted;
    this.#release(wanted, 0, vectors.length);
  }

  #preparePin(): void {
    // Matches no set-up: if the disconnection below fails, the next change begins with it.
    const half: Connected = { kind: 'intx', vectors: [], eventKinds: [] };
    this.#connected = half;
    try {
      this.#options.onPin();
    } catch (error) {
      this.#disconnect(half);
      throw error;
    }
  }

  /** Masks and unmasks vectors. */
  #move(
    now: Connected,
    desired: DesiredConnection,
    { first, end }: { readonly first: number; readonly end: number },
  ): void {
    const moves: Move[] = [];
    for (let index = first; index < end; index++) {
      const from = now.eventKinds[index] ?? 'none';
      const to = eventKindFor(desired, index, from);
      if (from !== to) moves.push({ index, from, to });
    }
    const discard = makeEvents(moves.map(({ index, to }) => [now.vectors[index], to]));
    let done = 0;
    try {
      for (const { index, to } of moves) {
        done++;
        this.#setEvent(now, index, to);
      }
    } catch (error) {
      const problems: Error[] = [];
      for (const { index, from } of moves.slice(0, done).toReversed()) {
        try {
          if (now.eventKinds[index] !== from) this.#setEvent(now, index, from);
        } catch (thrown) {
          problems.push(asError(thrown));
        }
      }
      discard();
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    } finally {
      this.#release(now, first, end);
    }
  }

  /**
   * Connects a vector to another eventfd.
   *
   * While the kernel switches, a device with mask bits masks the vector and keeps an interrupt pending. Without mask
   * bits (some MSI) the guest cannot mask vectors either, so their eventfds never change.
   */
  #setEvent({ kind, vectors, eventKinds }: Connected, index: number, to: EventKind): void {
    const vector = vectors[index];
    // The count here and the pending bit of the device are one message. The device sends it once the vector is
    // connected.
    if (
      to === 'event' &&
      this.isMaskedInDevice(index) &&
      vector?.isPending === true &&
      this.#options.pending.has(index)
    ) {
      vector.clearPending();
    }
    const event = eventFor(vector, to);
    eventKinds[index] = 'none'; // the state if the device rejects the change
    this.#device.reconnect(kind, index, event);
    eventKinds[index] = to;
    if (to !== 'event') vector?.makePending();
  }

  /**
   * Delivers the pending interrupts of unmasked vectors to the VMM.
   *
   * It runs after the vectors are connected to the VMM's eventfds: earlier interrupts are counted here, later ones
   * reach the VMM directly. In the opposite order, an interrupt in between would wait until the guest masks the vector
   * again.
   */
  #release({ vectors, eventKinds }: Connected, first: number, end: number): void {
    for (let index = first; index < end; index++) {
      if (eventKinds[index] === 'event') vectors[index]?.deliverPending();
    }
  }
}

function eventKindFor(desired: DesiredConnection, index: number, now: EventKind): EventKind {
  if (!desired.isMasked(index)) return 'event';
  return desired.kind === 'msix' && now === 'none' ? 'none' : 'masked';
}

function eventFor(vector: InterruptVector | undefined, eventKind: EventKind | undefined) {
  if (eventKind === 'event') return vector?.event;
  return eventKind === 'masked' ? vector?.maskedEvent : undefined;
}

/**
 * Creates the eventfds that vectors need, all or none.
 *
 * @returns closes those that were created
 * @throws {PeerDmaError} `ERR_SYSTEM` if no descriptors are left
 */
function makeEvents(
  needed: readonly (readonly [vector: InterruptVector | undefined, eventKind: EventKind | undefined])[],
): () => void {
  const made: (() => void)[] = [];
  const discard = (): void => {
    for (const one of made) one();
  };
  try {
    for (const [vector, eventKind] of needed) {
      if (vector === undefined || eventKind === undefined || eventKind === 'none' || vector.hasEvent(eventKind))
        continue;
      eventFor(vector, eventKind);
      made.push(() => vector.closeEvent(eventKind));
    }
  } catch (error) {
    discard();
    throw error;
  }
  return discard;
}
