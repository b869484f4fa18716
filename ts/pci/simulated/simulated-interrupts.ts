/** The interrupts of a simulated device, with the rules of VFIO; the counterpart of `VfioInterrupts`. */
import { readArray } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { requireNumber } from '../../number-types.ts';
import { type EventFd, type HeldEvent, holdEvent, nativeEventFdOf } from '../../event-fd.ts';
import type { DeviceInterrupts, InterruptKind } from '../physical-function.ts';
import { valueText } from '../../value-text.ts';

/** VFIO connects one of these at a time. */
const EXCLUSIVE: readonly InterruptKind[] = ['intx', 'msi', 'msix'];

/** @internal */
export class SimulatedInterrupts implements DeviceInterrupts {
  readonly #bdf: string;
  readonly #counts: Readonly<Record<InterruptKind, number>>;
  readonly #canSignal: (kind: InterruptKind) => boolean;
  readonly #connected = new Map<InterruptKind, (HeldEvent | undefined)[]>();
  #resample: EventFd | undefined;
  /** Whether the device asserts its pin. */
  #asserted = false;
  #masked = false;
  /** Pending MSI-X vectors: raised while they were not connected. */
  readonly #pending = new Set<number>();
  /** Whether Command disables the pin. */
  #pinDisabled = false;
  #closed = false;

  /** @param canSignal whether the registers of the function allow it to interrupt; messages are DMA */
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
      throw this.#error(
        'ERR_INVALID_ARGUMENT',
        'a kind is connected with one vector or more. Use disconnect to connect none.',
      );
    }
    this.#requireVectors(kind, count, events.length);
    const busy = (EXCLUSIVE.includes(kind) ? EXCLUSIVE : [kind]).find((other) => this.#connected.has(other));
    if (busy !== undefined) {
      throw this.#error('ERR_INTERRUPT_SETUP', `${busy} of ${this.#bdf} is connected. Disconnect it first.`);
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
    this.#masked = this.#pinDisabled;
    this.update();
  }

  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void {
    this.#requireOpen();
    const count = this.count(kind);
    requireVector(this.#bdf, vector);
    this.#requireVectors(kind, count, vector + 1);
    const connected = this.#connected.get(kind) ?? [];
    if (vector >= connected.length) {
      const state = `${kind} of ${this.#bdf} is connected with ${connected.length} vector(s)`;
      const text = `${state}, and ${vector} is not among them`;
      throw this.#error('ERR_INTERRUPT_SETUP', `${text}. Disconnect it, and connect all that are needed.`);
    }
    const next = eventFd && holdEvent(eventFd);
    connected[vector]?.release();
    connected[vector] = next;
    this.update();
  }

  disconnect(kind: InterruptKind): void {
    this.count(kind); // throws for an unknown kind
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

  /** Uses the eventfd's own listener, so the eventfd has to stay open. The kernel would read the count itself. */
  unmaskIntxOn(eventFd: EventFd | undefined): void {
    this.#requireIntx();
    if (eventFd !== undefined) nativeEventFdOf(eventFd); // throws if it is not an EventFd
    this.#stopResampling();
    eventFd?.onSignal(() => this.#unmask());
    this.#resample = eventFd;
  }

  /** Whether a kind is connected, and so enabled in the device. */
  isConnected(kind: InterruptKind): boolean {
    return this.#connected.has(kind);
  }

  /** Whether the device asserts its pin. It does so too while the pin is masked or disabled. */
  get isPinAsserted(): boolean {
    return this.#asserted;
  }

  /**
   * Raises an interrupt. The pin stays asserted until {@link SimulatedInterrupts.lowerIntx}.
   *
   * @returns whether an eventfd was signalled
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
    // The kernel masks a vector without an eventfd.
    if (kind === 'msix' && vector < (this.#connected.get(kind)?.length ?? 0)) this.#pending.add(vector);
    return false;
  }

  /** Whether a message of MSI-X is pending until its vector is connected. */
  isPending(vector: number): boolean {
    return this.#pending.has(vector);
  }

  /** Restores the power-on state; connections are kept. */
  reset(): void {
    this.#asserted = false;
    this.#pending.clear();
  }

  /** Returns whether the pin is asserted (1 byte), and the pending vectors (2 bytes each). */
  save(): Uint8Array {
    const bytes = Buffer.alloc(1 + 2 * this.#pending.size);
    bytes.writeUInt8(this.#asserted ? 1 : 0);
    for (const [index, vector] of [...this.#pending].entries()) bytes.writeUInt16LE(vector, 1 + 2 * index);
    return bytes;
  }

  /** Restores what {@link SimulatedInterrupts.save} returned. Connections are kept. */
  load(state: Uint8Array): void {
    const bytes = Buffer.from(state);
    this.#asserted = bytes.readUInt8(0) === 1;
    this.#pending.clear();
    for (let at = 1; at < bytes.length; at += 2) this.#pending.add(bytes.readUInt16LE(at));
    this.update();
  }

  lowerIntx(): void {
    this.#asserted = false;
  }

  /** Disables or enables the pin by Command. That also masks or unmasks it (Linux `vfio_basic_config_write`). */
  setPinDisabled(off: boolean): void {
    if (off === this.#pinDisabled) return;
    this.#pinDisabled = off;
    this.#masked = off;
  }

  /**
   * Signals deferred interrupts that are possible now. These are pending messages, and the pin unless it is masked.
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
    if (this.#pinDisabled) return;
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
      resample?.onSignal(undefined);
    } catch (error) {
      // Its owner has closed it, which removed the listener.
      if (!(error instanceof PeerDmaError && error.code === 'ERR_CLOSED')) throw error;
    }
  }

  #requireOpen(): void {
    if (this.#closed) throw this.#error('ERR_CLOSED', `the simulated device ${this.#bdf} is closed`);
  }

  #requireIntx(): void {
    this.#requireOpen();
    if (!this.isConnected('intx')) {
      throw this.#error('ERR_INTERRUPT_SETUP', `intx of ${this.#bdf} is not connected. Connect it first.`);
    }
  }

  #requireVectors(kind: InterruptKind, count: number, wanted: number): void {
    if (wanted <= count) return;
    throw this.#error(
      'ERR_INTERRUPT_UNSUPPORTED',
      `${this.#bdf} has ${count === 0 ? 'no' : `only ${count} vector(s) of`} ${kind}, and ${wanted} are requested`,
    );
  }

  #error(
    code: 'ERR_CLOSED' | 'ERR_INVALID_ARGUMENT' | 'ERR_INTERRUPT_SETUP' | 'ERR_INTERRUPT_UNSUPPORTED',
    message: string,
  ): PeerDmaError {
    return new PeerDmaError(code, message, { bdf: this.#bdf });
  }
}

function requireVector(bdf: string, vector: number): void {
  requireNumber(vector, 'vector', bdf);
  if (Number.isSafeInteger(vector) && vector >= 0) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a vector is a number from 0 on, not ${valueText(vector)}`, {
    bdf,
  });
}
