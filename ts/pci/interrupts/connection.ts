/**
 * Which vectors of a device go where: the one of INTx, MSI and MSI-X that is connected, and the eventfd of each of its vectors.
 */
import { rollbackFailed } from '../../dma/mapping-error.ts';
import { asError } from '../../errors.ts';
import type { DeviceInterrupts } from '../physical-function.ts';
import type { InterruptVector } from './vector.ts';

/** What is to be connected. @internal */
export interface Wish {
  readonly kind: 'intx' | 'msi' | 'msix';
  /** The first ones of their kind. */
  readonly vectors: readonly InterruptVector[];
  /** Whether the guest is not to hear of a vector now. */
  isMasked(index: number): boolean;
}

/** Where a vector's interrupts go: to the VMM, to where they wait for being unmasked; `lost` after a failure alone. */
type Place = 'event' | 'holding' | 'lost';

interface Connected {
  readonly kind: Wish['kind'];
  readonly vectors: readonly InterruptVector[];
  readonly places: Place[];
}

/** @internal */
export class Connection {
  readonly #device: DeviceInterrupts;
  /** Called when the pin was connected. */
  readonly #onPin: () => void;
  #connected: Connected | undefined;

  constructor(device: DeviceInterrupts, onPin: () => void) {
    this.#device = device;
    this.#onPin = onPin;
  }

  get kind(): Wish['kind'] | undefined {
    return this.#connected?.kind;
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
    const places = vectors.map((_, index) => (wish === undefined ? 'lost' : placeOf(wish, index)));
    // Before anything is disconnected: this is where descriptors run out.
    const discard = makeEvents(vectors, places);
    try {
      if (before !== undefined) this.#device.disconnect(before.kind);
    } catch (error) {
      discard();
      throw error;
    }
    this.#connected = undefined;
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

  #connect(wanted: Connected): void {
    const { kind, vectors, places } = wanted;
    this.#device.connect(
      kind,
      vectors.map((vector, index) => eventFor(vector, places[index])),
    );
    this.#connected = wanted;
    if (kind === 'intx') {
      try {
        this.#onPin();
      } catch (error) {
        this.#device.disconnect(kind);
        this.#connected = undefined;
        throw error;
      }
    }
    this.#release(wanted, 0, vectors.length);
  }

  /** Masks and unmasks. */
  #move(now: Connected, wish: Wish, { first, end }: { readonly first: number; readonly end: number }): void {
    const moved: { index: number; from: Place }[] = [];
    try {
      for (let index = first; index < end; index++) {
        const [from, to] = [now.places[index] ?? 'lost', placeOf(wish, index)];
        if (from === to) continue;
        moved.push({ index, from });
        this.#put(now, index, to);
      }
    } catch (error) {
      const problems: Error[] = [];
      for (const { index, from } of moved.toReversed()) {
        try {
          if (from !== 'lost') this.#put(now, index, from);
        } catch (thrown) {
          problems.push(asError(thrown));
        }
      }
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
    places[index] = 'lost'; // a device that refuses leaves the vector silent
    this.#device.reconnect(kind, index, eventFor(vectors[index], to));
    places[index] = to;
    if (to === 'holding') vectors[index]?.hold();
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

function placeOf(wish: Wish, index: number): Place {
  return wish.isMasked(index) ? 'holding' : 'event';
}

function eventFor(vector: InterruptVector | undefined, place: Place | undefined) {
  if (place === 'event') return vector?.event;
  return place === 'holding' ? vector?.holding : undefined;
}

/**
 * Makes the eventfds that a connection needs, all or none.
 *
 * @returns closes those that weren't there before
 * @throws {PeerDmaError} `ERR_SYSTEM` where there are no descriptors left
 */
function makeEvents(vectors: readonly InterruptVector[], places: readonly Place[]): () => void {
  const made: (() => void)[] = [];
  const discard = (): void => {
    for (const one of made) one();
  };
  try {
    for (const [index, vector] of vectors.entries()) {
      const place = places[index];
      if (place === undefined || place === 'lost' || vector.has(place)) continue;
      eventFor(vector, place);
      made.push(() => vector.discard(place));
    }
  } catch (error) {
    discard();
    throw error;
  }
  return discard;
}
