/**
 * The interrupts of a simulated device, under the rules of VFIO: what `VfioInterrupts` is for a real one.
 */
import { readArray } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { type EventFd, type HeldEvent, holdEvent, nativeEventFdOf } from '../event-fd.ts';
import type { DeviceInterrupts, InterruptKind } from '../physical-function.ts';
import { valueText } from '../../value-text.ts';

/** Of these VFIO connects one at a time. */
const EXCLUSIVE: readonly InterruptKind[] = ['intx', 'msi', 'msix'];

/** @internal */
export class SimulatedInterrupts implements DeviceInterrupts {
  readonly #bdf: string;
  readonly #counts: Readonly<Record<InterruptKind, number>>;
  readonly #canSignal: (kind: InterruptKind) => boolean;
  readonly #connected = new Map<InterruptKind, (HeldEvent | undefined)[]>();
  #resample: EventFd | undefined;
  /** Whether the device pulls its pin. */
  #asserted = false;
  #masked = false;
  /** Messages of MSI-X that the device keeps, since nobody is connected to their vectors. */
  readonly #pending = new Set<number>();
  /** Whether Command has the pin switched off. */
  #pinOff = false;
  #closed = false;

  /**
   * @param canSignal whether the function is able to, by its registers; messages are DMA
   */
  constructor(
    bdf: string,
    counts: Readonly<Record<InterruptKind, number>>,
    canSignal: (kind: InterruptKind) => boolean,
  ) {
    this.#bdf = bdf;
    this.#counts = counts;
    this.#canSignal = canSignal;
  }

  count(kind: InterruptKind): number {
    if (typeof kind === 'string' && Object.hasOwn(this.#counts, kind)) return this.#counts[kind];
    const kinds = Object.keys(this.#counts).join(', ');
    throw this.#error('ERR_INVALID_ARGUMENT', `a kind of interrupt is one of ${kinds}, not ${valueText(kind)}`);
  }

  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void {
    this.#requireOpen();
    const count = this.count(kind);
    const events = readArray(eventFds, 'the vectors of a kind');
    if (events.length === 0) {
      throw this.#error('ERR_INVALID_ARGUMENT', 'a kind is connected with one vector or more: disconnect silences it');
    }
    this.#requireVectors(kind, count, events.length);
    const busy = (EXCLUSIVE.includes(kind) ? EXCLUSIVE : [kind]).find((other) => this.#connected.has(other));
    if (busy !== undefined) {
      throw this.#error('ERR_INTERRUPT_SETUP', `${busy} of ${this.#bdf} is connected: disconnect it first`);
    }
    const held: (HeldEvent | undefined)[] = [];
    try {
      for (const eventFd of events) held.push(eventFd && holdEvent(eventFd));
    } catch (error) {
      for (const event of held) event?.release();
      throw error;
    }
    this.#connected.set(kind, held);
    if (kind !== 'intx') return;
    this.#masked = this.#pinOff;
    this.update();
  }

  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void {
    this.#requireOpen();
    const count = this.count(kind);
    requireVector(this.#bdf, vector);
    this.#requireVectors(kind, count, vector + 1);
    const connected = this.#connected.get(kind) ?? [];
    if (vector >= connected.length) {
      const text = `${kind} of ${this.#bdf} is connected with ${connected.length} vector(s), and ${vector} is none of them`;
      throw this.#error('ERR_INTERRUPT_SETUP', `${text}: disconnect it, and connect as many as are needed`);
    }
    const next = eventFd && holdEvent(eventFd);
    connected[vector]?.release();
    connected[vector] = next;
    this.update();
  }

  disconnect(kind: InterruptKind): void {
    this.count(kind); // which says so, if it is none
    this.#release(kind);
  }

  maskIntx(): void {
    this.#requireIntx();
    this.#masked = true;
  }

  unmaskIntx(): void {
    this.#requireIntx();
    this.#unmask();
  }

  /** The kernel would take the count itself; here the eventfd's own listener does, so it has to stay open. */
  unmaskIntxOn(eventFd: EventFd | undefined): void {
    this.#requireIntx();
    if (eventFd !== undefined) nativeEventFdOf(eventFd); // which says so, if it is none
    this.#stopResampling();
    eventFd?.listen(() => this.#unmask());
    this.#resample = eventFd;
  }

  /** Whether a kind is connected, and so switched on in the device. */
  isConnected(kind: InterruptKind): boolean {
    return this.#connected.has(kind);
  }

  /**
   * The device interrupts. The pin stays asserted until {@link SimulatedInterrupts.lowerIntx}.
   *
   * @returns whether somebody was told
   */
  raise(kind: InterruptKind, vector: number): boolean {
    this.#requireOpen();
    const count = this.count(kind);
    requireVector(this.#bdf, vector);
    this.#requireVectors(kind, count, vector + 1);
    if (kind === 'intx') {
      this.#asserted = true;
      return this.update();
    }
    if (!this.#canSignal(kind)) return false;
    if (this.#signal(kind, vector)) return true;
    // A vector that nobody is connected to is masked by the kernel.
    if (kind === 'msix' && vector < (this.#connected.get(kind)?.length ?? 0)) this.#pending.add(vector);
    return false;
  }

  /** Whether the device keeps a message of MSI-X until its vector is connected. */
  isPending(vector: number): boolean {
    return this.#pending.has(vector);
  }

  /** As after power-on; what is connected stays so. */
  reset(): void {
    this.#asserted = false;
    this.#pending.clear();
  }

  lowerIntx(): void {
    this.#asserted = false;
  }

  /** Command switches the pin off or on, and so masks or unmasks it (Linux `vfio_basic_config_write`). */
  switchPin(off: boolean): void {
    if (off === this.#pinOff) return;
    this.#pinOff = off;
    this.#masked = off;
  }

  /**
   * Signals what nothing speaks against any more: the pin, which VFIO masks until somebody has seen to it, and messages that
   * the device has kept.
   *
   * @returns whether the pin was signalled
   */
  update(): boolean {
    for (const vector of this.#pending) {
      if (this.#canSignal('msix') && this.#signal('msix', vector)) this.#pending.delete(vector);
    }
    if (!this.#asserted || this.#masked || !this.isConnected('intx') || !this.#canSignal('intx')) return false;
    this.#masked = true;
    return this.#signal('intx', 0);
  }

  close(): void {
    for (const kind of this.#connected.keys()) this.#release(kind);
    this.#closed = true;
  }

  #unmask(): void {
    if (this.#pinOff) return;
    this.#masked = false;
    this.update();
  }

  #signal(kind: InterruptKind, vector: number): boolean {
    const event = this.#connected.get(kind)?.[vector];
    event?.signal();
    return event !== undefined;
  }

  #release(kind: InterruptKind): void {
    for (const event of this.#connected.get(kind) ?? []) event?.release();
    this.#connected.delete(kind);
    if (kind === 'intx') this.#stopResampling();
    if (kind === 'msix') this.#pending.clear();
  }

  #stopResampling(): void {
    const resample = this.#resample;
    this.#resample = undefined;
    try {
      resample?.listen(undefined);
    } catch (error) {
      // Closed by its owner: nobody listens any more.
      if (!(error instanceof PeerDmaError && error.code === 'ERR_CLOSED')) throw error;
    }
  }

  #requireOpen(): void {
    if (this.#closed) throw this.#error('ERR_CLOSED', `the simulated device ${this.#bdf} is closed`);
  }

  #requireIntx(): void {
    this.#requireOpen();
    if (!this.isConnected('intx')) {
      throw this.#error('ERR_INTERRUPT_SETUP', `intx of ${this.#bdf} is not connected: connect it first`);
    }
  }

  #requireVectors(kind: InterruptKind, count: number, wanted: number): void {
    if (wanted <= count) return;
    throw this.#error(
      'ERR_INTERRUPT_UNSUPPORTED',
      `${this.#bdf} has ${count === 0 ? 'no' : `only ${count} vector(s) of`} ${kind}, and ${wanted} are asked for`,
    );
  }

  #error(
    code: 'ERR_CLOSED' | 'ERR_INVALID_ARGUMENT' | 'ERR_INTERRUPT_SETUP' | 'ERR_INTERRUPT_UNSUPPORTED',
    message: string,
  ): PeerDmaError {
    return new PeerDmaError(code, message, { device: this.#bdf });
  }
}

function requireVector(bdf: string, vector: number): void {
  if (Number.isSafeInteger(vector) && vector >= 0) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a vector is a number from 0 on, not ${valueText(vector)}`, {
    device: bdf,
  });
}
