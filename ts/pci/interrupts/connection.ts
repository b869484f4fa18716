/**
 * Which vectors of a device go where: the one of INTx, MSI and MSI-X that is connected, and the eventfd of each of its vectors.
 */
import { rollbackFailed } from '../../dma/mapping-error.ts';
import { asError } from '../../errors.ts';
import type { DeviceInterrupts } from '../physical-function.ts';
import type { DevicePending } from './device-pending.ts';
import type { InterruptVector } from './vector.ts';

/** What is to be connected. @internal */
export interface Wish {
  readonly kind: 'intx' | 'msi' | 'msix';
  /** The first ones of their kind. */
  readonly vectors: readonly InterruptVector[];
  /** Whether the guest is not to hear of a vector now. */
  isMasked(index: number): boolean;
}

/**
 * Where a vector's interrupts go: to the VMM, to where they wait for being unmasked, or nowhere. Of MSI-X it begins with
 * nowhere, which costs neither an eventfd nor an interrupt of the host: the host has the entry masked, and the device keeps
 * its message pending until the vector is connected to the VMM. A reconnection that the device refused ends there, too.
 */
type Place = 'event' | 'holding' | 'silent';

interface Connected {
  readonly kind: Wish['kind'];
  readonly vectors: readonly InterruptVector[];
  readonly places: Place[];
}

/** A vector that gets another place. */
interface Move {
  readonly index: number;
  readonly from: Place;
  readonly to: Place;
}

/** What a connection needs besides the device's interrupts. @internal */
export interface ConnectionNeeds {
  /** Called when the pin was connected. */
  readonly onPin: () => void;
  readonly pending: DevicePending;
}

/** @internal */
export class Connection {
  readonly #device: DeviceInterrupts;
  readonly #needs: ConnectionNeeds;
  #connected: Connected | undefined;

  constructor(device: DeviceInterrupts, needs: ConnectionNeeds) {
    this.#device = device;
    this.#needs = needs;
  }

  get kind(): Wish['kind'] | undefined {
    return this.#connected?.kind;
  }

  /** Whether it is the device that keeps what a vector of MSI-X has to say. */
  isWithDevice(index: number): boolean {
    return this.#connected?.kind === 'msix' && this.#connected.places[index] === 'silent';
  }

  /**
   * Connects what is wished for, and nothing else. Only what differs from before is touched.
   *
   * @param among the vectors that may differ, if the kind and their number are as before
   * @throws {PeerDmaError} what the device said; all is connected as before then, or, with `ERR_ROLLBACK_FAILED`, as much
   * of it as the device would take
   */
  become(wish: Wish | undefined, among?: { readonly first: number; readonly end: number }): void {
    const now = this.#connected;
    if (wish !== undefined && wish.kind === now?.kind && wish.vectors.length === now.vectors.length) {
      this.#move(now, wish, among ?? { first: 0, end: wish.vectors.length });
    } else if (wish !== undefined || now !== undefined) {
      this.#replace(wish);
    }
  }

  #replace(wish: Wish | undefined): void {
    const before = this.#connected;
    const vectors = wish?.vectors ?? [];
    const places = vectors.map((_, index) => (wish === undefined ? 'silent' : placeOf(wish, index, 'silent')));
    // Before anything is disconnected: this is where descriptors run out.
    const discard = makeEvents(vectors.map((vector, index) => [vector, places[index]]));
    try {
      if (before !== undefined) this.#disconnect(before);
    } catch (error) {
      discard();
      throw error;
    }
    if (wish === undefined) return;
    try {
      this.#connect({ kind: wish.kind, vectors, places });
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

  /** What a device has pending is not said to outlive its being switched off, so it is pending here from then on. */
  #disconnect({ kind, vectors, places }: Connected): void {
    const withDevice = kind === 'msix' ? [...places.keys()].filter((index) => places[index] === 'silent') : [];
    const pending = this.#needs.pending.among(withDevice);
    this.#device.disconnect(kind);
    this.#connected = undefined;
    for (const index of pending) vectors[index]?.pend();
  }

  #connect(wanted: Connected): void {
    const { kind, vectors, places } = wanted;
    this.#device.connect(
      kind,
      vectors.map((vector, index) => eventFor(vector, places[index])),
    );
    if (kind === 'intx') this.#preparePin();
    this.#connected = wanted;
    this.#release(wanted, 0, vectors.length);
  }

  #preparePin(): void {
    // Like nothing that is wished for: if the device won't be disconnected either, the next change begins with that.
    const half: Connected = { kind: 'intx', vectors: [], places: [] };
    this.#connected = half;
    try {
      this.#needs.onPin();
    } catch (error) {
      this.#disconnect(half);
      throw error;
    }
  }

  /** Masks and unmasks. */
  #move(now: Connected, wish: Wish, { first, end }: { readonly first: number; readonly end: number }): void {
    const moves: Move[] = [];
    for (let index = first; index < end; index++) {
      const from = now.places[index] ?? 'silent';
      const to = placeOf(wish, index, from);
      if (from !== to) moves.push({ index, from, to });
    }
    const discard = makeEvents(moves.map(({ index, to }) => [now.vectors[index], to]));
    let done = 0;
    try {
      for (const { index, to } of moves) {
        done++;
        this.#put(now, index, to);
      }
    } catch (error) {
      const problems: Error[] = [];
      for (const { index, from } of moves.slice(0, done).toReversed()) {
        try {
          if (now.places[index] !== from) this.#put(now, index, from);
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
   * The device's vector gets the other eventfd. While the kernel changes over, a device that can mask its vectors has them
   * masked and keeps an interrupt pending itself; the others (MSI without mask bits) the guest can't mask either, so none of them
   * ever gets here.
   */
  #put({ kind, vectors, places }: Connected, index: number, to: Place): void {
    const vector = vectors[index];
    // What is held here and what the device holds is one message. It sends it once the vector is connected.
    if (to === 'event' && this.isWithDevice(index) && vector?.isPending === true && this.#needs.pending.has(index)) {
      vector.forgetPending();
    }
    const event = eventFor(vector, to);
    places[index] = 'silent'; // a device that refuses leaves it so
    this.#device.reconnect(kind, index, event);
    places[index] = to;
    if (to !== 'event') vector?.hold();
  }

  /**
   * What was held for vectors that are unmasked now goes to the VMM. This has to come after they were connected to their
   * own eventfds: what interrupts before that is counted where it is looked for here, and what interrupts after that goes
   * straight to the VMM. The other way round an interrupt between the two would wait until the guest masks the vector again.
   */
  #release({ vectors, places }: Connected, first: number, end: number): void {
    for (let index = first; index < end; index++) {
      if (places[index] === 'event') vectors[index]?.release();
    }
  }
}

function placeOf(wish: Wish, index: number, now: Place): Place {
  if (!wish.isMasked(index)) return 'event';
  return wish.kind === 'msix' && now === 'silent' ? 'silent' : 'holding';
}

function eventFor(vector: InterruptVector | undefined, place: Place | undefined) {
  if (place === 'event') return vector?.event;
  return place === 'holding' ? vector?.holding : undefined;
}

/**
 * Makes the eventfds that vectors need at their places, all or none.
 *
 * @returns closes those that weren't there before
 * @throws {PeerDmaError} `ERR_SYSTEM` where there are no descriptors left
 */
function makeEvents(
  needed: readonly (readonly [vector: InterruptVector | undefined, place: Place | undefined])[],
): () => void {
  const made: (() => void)[] = [];
  const discard = (): void => {
    for (const one of made) one();
  };
  try {
    for (const [vector, place] of needed) {
      if (vector === undefined || place === undefined || place === 'silent' || vector.has(place)) continue;
      eventFor(vector, place);
      made.push(() => vector.discard(place));
    }
  } catch (error) {
    discard();
    throw error;
  }
  return discard;
}
