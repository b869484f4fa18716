/**
 * Interrupts of a fake device under VFIO's rules.
 *
 * Only one of INTx, MSI and MSI-X is connected at a time; only connected vectors can be reconnected; connecting is all
 * or nothing; a vector is left unconnected if reconnecting fails.
 */
import { type ErrorCode, type EventFd, PeerDmaError } from '../../../../ts/index.ts';
import type { DeviceInterrupts, InterruptKind } from '../../../../ts/pci/physical-function.ts';

const EXCLUSIVE: readonly InterruptKind[] = ['intx', 'msi', 'msix'];

export class StrictInterrupts implements DeviceInterrupts {
  readonly #counts: Record<InterruptKind, number>;
  readonly #connected = new Map<InterruptKind, (EventFd | undefined)[]>();
  /** Pending messages of MSI-X vectors without an eventfd. */
  readonly #pending = new Set<number>();
  #resample: EventFd | undefined;
  /** The calls, in order. */
  readonly calls: string[] = [];
  /** Command disables the pin. */
  pinOff = false;
  /** Called with its description before a call takes effect. A returned value is thrown. */
  judge: (call: string) => unknown = () => undefined;
  /**
   * Called with the description of a reconnection. The call is between the last interrupt of the old eventfd and the
   * first of the new.
   */
  between: (call: string) => void = () => {};

  constructor(counts: Partial<Record<InterruptKind, number>>) {
    this.#counts = { intx: 0, msi: 0, msix: 0, error: 0, request: 0, ...counts };
  }

  /** Makes calls fail by their number: 0 is the next one. */
  failAt(...numbers: readonly number[]): void {
    let made = 0;
    this.judge = (call) => {
      const fails = numbers.includes(made++);
      return fails ? new PeerDmaError('ERR_INTERRUPT_SETUP', `refused: ${call}`) : undefined;
    };
  }

  failNever(): void {
    this.judge = () => undefined;
  }

  /** Raises an interrupt. @returns whether an eventfd is connected */
  raise(kind: InterruptKind, vector = 0): boolean {
    const event = kind === 'intx' && this.pinOff ? undefined : this.#connected.get(kind)?.[vector];
    event?.signal();
    if (kind === 'msix' && event === undefined && this.#connected.has(kind)) this.#pending.add(vector);
    return event !== undefined;
  }

  /** The connected kinds, with the number of their vectors that have an eventfd. */
  get connected(): Record<string, number> {
    const kinds = [...this.#connected].map(([kind, events]) => [kind, events.filter(Boolean).length] as const);
    return Object.fromEntries(kinds.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The bytes of the device's own pending bits. */
  readPending(offset: number, length: number): Uint8Array {
    const byte = (first: number): number =>
      [0, 1, 2, 3, 4, 5, 6, 7].reduce((bits, bit) => bits | (this.#pending.has(first + bit) ? 1 << bit : 0), 0);
    return Uint8Array.from({ length }, (_, index) => byte((offset + index) * 8));
  }

  /** The eventfd that unmasks the pin. */
  get resample(): EventFd | undefined {
    return this.#resample;
  }

  count(kind: InterruptKind): number {
    return this.#counts[kind];
  }

  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void {
    this.#call(`connect ${kind} ${eventFds.length}`);
    require(eventFds.length > 0, 'ERR_INVALID_ARGUMENT', 'no vectors');
    require(eventFds.length <= this.#counts[kind], 'ERR_INTERRUPT_UNSUPPORTED', `too many of ${kind}`);
    const busy = (EXCLUSIVE.includes(kind) ? EXCLUSIVE : [kind]).find((other) => this.#connected.has(other));
    require(busy === undefined, 'ERR_INTERRUPT_SETUP', `${String(busy)} is connected`);
    this.#connected.set(kind, [...eventFds]);
  }

  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void {
    const call = `reconnect ${kind} ${vector}`;
    const events = this.#connected.get(kind) ?? [];
    require(vector < events.length, 'ERR_INTERRUPT_SETUP', `${vector} of ${kind} is not connected`);
    try {
      this.#call(call);
    } catch (error) {
      events[vector] = undefined;
      throw error;
    }
    this.between(`before ${call}`);
    events[vector] = eventFd;
    if (kind === 'msix' && eventFd !== undefined && this.#pending.delete(vector)) eventFd.signal();
    this.between(`after ${call}`);
  }

  disconnect(kind: InterruptKind): void {
    if (!this.#connected.has(kind)) return;
    this.#call(`disconnect ${kind}`);
    this.#connected.delete(kind);
    if (kind === 'intx') this.#resample = undefined;
    if (kind === 'msix') this.#pending.clear();
  }

  maskIntx(): void {
    this.#call('mask');
    require(this.#connected.has('intx'), 'ERR_INTERRUPT_SETUP', 'intx is not connected');
  }

  unmaskIntx(): void {
    this.#call('unmask');
    require(this.#connected.has('intx'), 'ERR_INTERRUPT_SETUP', 'intx is not connected');
  }

  unmaskIntxOn(eventFd: EventFd | undefined): void {
    this.#call('unmask on');
    require(this.#connected.has('intx'), 'ERR_INTERRUPT_SETUP', 'intx is not connected');
    this.#resample = eventFd;
  }

  #call(call: string): void {
    this.calls.push(call);
    const refusal = this.judge(call);
    if (refusal !== undefined) throw refusal;
  }
}

function require(so: boolean, code: ErrorCode, message: string): void {
  if (!so) throw new PeerDmaError(code, message);
}
