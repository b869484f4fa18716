/**
 * The interrupts of an opened VFIO device.
 */
import type { NativeVfioDevice } from '#native';
import { readArray } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import { native } from '../native-call.ts';
import { type EventFd, nativeEventFdOf } from '../event-fd.ts';
import type { DeviceInterrupts, InterruptKind } from '../pci/physical-function.ts';

/** By VFIO index (`linux/vfio.h`). */
const KINDS: readonly InterruptKind[] = ['intx', 'msi', 'msix', 'error', 'request'];
/** The kernel connects only one of these at a time. */
const EXCLUSIVE: readonly InterruptKind[] = ['intx', 'msi', 'msix'];

/**
 * Interrupts that the kernel receives from the device and signals on eventfds. A reset leaves them connected; closing
 * the device disconnects them.
 */
export class VfioInterrupts implements DeviceInterrupts {
  readonly #bdf: string;
  readonly #device: NativeVfioDevice;
  readonly #counts: readonly number[];
  /** Number of connected vectors of each kind. */
  readonly #connected = new Map<InterruptKind, number>();

  /** @internal */
  constructor(bdf: string, device: NativeVfioDevice) {
    this.#bdf = bdf;
    this.#device = device;
    this.#counts = KINDS.map((_, index) => this.#call(() => device.irqCount(index)));
  }

  /** Returns the number of vectors of a kind, 0 if the device does not have the kind. */
  count(kind: InterruptKind): number {
    return this.#counts[indexOf(kind)] ?? 0;
  }

  /**
   * Connects the first vectors of a kind; see {@link DeviceInterrupts.connect}. If it throws, none of them is
   * connected.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED`, `ERR_INTERRUPT_SETUP`; `ERR_INVALID_ARGUMENT` for an empty
   * array; `ERR_CLOSED`
   */
  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void {
    const index = indexOf(kind);
    const events = readArray(eventFds, 'the vectors of a kind');
    if (events.length === 0) {
      throw this.#error(
        'ERR_INVALID_ARGUMENT',
        `a kind is connected with at least one vector. Call disconnect to silence it`,
      );
    }
    this.#requireVectors(kind, events.length);
    const [busy] = EXCLUSIVE.includes(kind) ? EXCLUSIVE.filter((other) => this.#connected.has(other)) : [kind];
    if (busy !== undefined && this.#connected.has(busy)) {
      throw this.#error('ERR_INTERRUPT_SETUP', `${busy} of ${this.#bdf} is connected. Disconnect it first`);
    }
    const handles = events.map((eventFd) => (eventFd === undefined ? undefined : nativeEventFdOf(eventFd)));
    const [first = [0, 0], ...others] = this.#allocatesLazily(kind) ? runs(handles) : [[0, handles.length] as const];
    this.#call(() => this.#device.connectIrqs(index, 0, handles.slice(...first)));
    this.#connected.set(kind, events.length);
    for (const [start, end] of others) {
      this.#connectFurther(kind, () => this.#device.connectIrqs(index, start, handles.slice(start, end)));
    }
    if (kind === 'intx') this.#signalAssertedPin();
  }

  /**
   * Connects one vector to another eventfd; see {@link DeviceInterrupts.reconnect}. If it throws, the vector is silent
   * and can be reconnected.
   *
   * @param vector its number within the kind, from 0
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for a vector that the device does not have;
   * `ERR_INTERRUPT_SETUP` for a vector that is not connected
   */
  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void {
    const index = indexOf(kind);
    requireNumber(vector, 'vector', this.#bdf);
    if (!Number.isSafeInteger(vector) || vector < 0) {
      throw this.#error('ERR_INVALID_ARGUMENT', `a vector is a number from 0 on, not ${valueText(vector)}`);
    }
    this.#requireVectors(kind, vector + 1);
    const connected = this.#connected.get(kind) ?? 0;
    if (vector >= connected) {
      const text = `vector ${vector} of ${kind} of ${this.#bdf} is not among the ${connected} connected one(s)`;
      throw this.#error('ERR_INTERRUPT_SETUP', `${text}. Disconnect the kind, and connect as many vectors as needed`);
    }
    const handle = eventFd === undefined ? undefined : nativeEventFdOf(eventFd);
    this.#call(() => this.#device.connectIrqs(index, vector, [handle]));
  }

  /** Disconnects all vectors of a kind. Does nothing if it is not connected, or the device is closed. */
  disconnect(kind: InterruptKind): void {
    const index = indexOf(kind);
    if (!this.#connected.has(kind)) return;
    this.#call(() => this.#device.disconnectIrqs(index));
    this.#connected.delete(kind);
  }

  /** Records that the device was closed, which disconnects everything. @internal */
  closed(): void {
    this.#connected.clear();
  }

  /**
   * Masks the pin.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` while `intx` is not connected, here and below
   */
  maskIntx(): void {
    this.#call(() => this.#device.maskIntx());
  }

  /** Unmasks the pin. If it is still asserted, it interrupts at once. */
  unmaskIntx(): void {
    this.#call(() => this.#device.unmaskIntx());
  }

  /**
   * Unmasks the pin whenever the eventfd is signalled; the kernel consumes the count. Replaces the previous eventfd.
   * Ends when `intx` is disconnected.
   *
   * @param eventFd `undefined` to stop
   */
  unmaskIntxOn(eventFd: EventFd | undefined): void {
    const handle = eventFd === undefined ? undefined : nativeEventFdOf(eventFd);
    // The kernel accepts one at a time (EBUSY).
    this.#call(() => this.#device.unmaskIntxOn(undefined));
    if (handle !== undefined) this.#call(() => this.#device.unmaskIntxOn(handle));
  }

  /**
   * Signals the interrupt of a pin that was asserted before it was connected. An interrupt controller may have treated
   * its unused line as edge-triggered (QEMU's does) and wait for the next edge. On an unmask, the kernel checks the pin
   * in the device and signals it if it is asserted. A pin that did interrupt is signalled at most once more.
   */
  #signalAssertedPin(): void {
    this.#connectFurther('intx', () => {
      this.#device.maskIntx();
      this.#device.unmaskIntx();
    });
  }

  /** Runs a later step of a connection. If it throws, disconnects the kind. */
  #connectFurther(kind: InterruptKind, act: () => void): void {
    try {
      this.#call(act);
    } catch (error) {
      this.disconnect(kind);
      throw error;
    }
  }

  /**
   * Whether the kernel allocates the host's interrupt of a vector with its first eventfd. Otherwise it does when its
   * kind is connected.
   */
  #allocatesLazily(kind: InterruptKind): boolean {
    return kind === 'msix' && this.#call(() => this.#device.irqGrows(indexOf(kind)));
  }

  #requireVectors(kind: InterruptKind, wanted: number): void {
    const count = this.count(kind);
    if (wanted <= count) return;
    throw this.#error(
      'ERR_INTERRUPT_UNSUPPORTED',
      `${this.#bdf} has ${count === 0 ? 'no' : `only ${count} vector(s) of`} ${kind}, and ${wanted} are required`,
    );
  }

  #error(code: 'ERR_INVALID_ARGUMENT' | 'ERR_INTERRUPT_SETUP' | 'ERR_INTERRUPT_UNSUPPORTED', message: string) {
    return new PeerDmaError(code, message, { bdf: this.#bdf });
  }

  #call<T>(call: () => T): T {
    return native(call, { bdf: this.#bdf });
  }
}

function indexOf(kind: InterruptKind): number {
  const index = KINDS.indexOf(kind);
  if (index >= 0) return index;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `a kind of interrupt is one of ${KINDS.join(', ')}, not ${valueText(kind)}`,
  );
}

/**
 * Returns the runs of vectors with an eventfd. The first run begins with the first vector, even if that has no eventfd:
 * connecting a kind requires at least one vector.
 */
function runs(handles: readonly unknown[]): (readonly [start: number, end: number])[] {
  const found: [start: number, end: number][] = [[0, 1]];
  for (let index = 1; index < handles.length; index++) {
    if (handles[index] === undefined) continue;
    const last = found.at(-1);
    if (last?.[1] === index) last[1] = index + 1;
    else found.push([index, index + 1]);
  }
  return found;
}
