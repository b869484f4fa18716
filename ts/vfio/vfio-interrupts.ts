/**
 * The interrupts of an opened VFIO device.
 */
import type { NativeVfioDevice } from '#native';
import { readArray } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { native } from '../native-call.ts';
import { type EventFd, nativeEventFdOf } from '../pci/event-fd.ts';
import type { DeviceInterrupts, InterruptKind } from '../pci/physical-function.ts';

/** By VFIO index (`linux/vfio.h`). */
const KINDS: readonly InterruptKind[] = ['intx', 'msi', 'msix', 'error', 'request'];
/** Of these the kernel connects one at a time. */
const EXCLUSIVE: readonly InterruptKind[] = ['intx', 'msi', 'msix'];

/**
 * Interrupts as the kernel takes them from the device and signals them on eventfds. A reset leaves them connected; closing the
 * device disconnects them.
 */
export class VfioInterrupts implements DeviceInterrupts {
  readonly #bdf: string;
  readonly #device: NativeVfioDevice;
  readonly #counts: readonly number[];
  /** How many vectors of a kind are connected. */
  readonly #connected = new Map<InterruptKind, number>();

  /** @internal */
  constructor(bdf: string, device: NativeVfioDevice) {
    this.#bdf = bdf;
    this.#device = device;
    this.#counts = KINDS.map((_, index) => this.#call(() => device.irqCount(index)));
  }

  /** How many vectors of a kind the device has; 0 where it has none. */
  count(kind: InterruptKind): number {
    return this.#counts[indexOf(kind)] ?? 0;
  }

  /**
   * Connects the first vectors of a kind; see {@link DeviceInterrupts.connect}. If it throws, none of them is connected.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED`, `ERR_INTERRUPT_SETUP`; `ERR_INVALID_ARGUMENT` for no vectors at all;
   * `ERR_CLOSED`
   */
  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void {
    const index = indexOf(kind);
    const events = readArray(eventFds, 'the vectors of a kind');
    if (events.length === 0) {
      throw this.#error('ERR_INVALID_ARGUMENT', `a kind is connected with one vector or more: disconnect silences it`);
    }
    this.#requireVectors(kind, events.length);
    const [busy] = EXCLUSIVE.includes(kind) ? EXCLUSIVE.filter((other) => this.#connected.has(other)) : [kind];
    if (busy !== undefined && this.#connected.has(busy)) {
      throw this.#error('ERR_INTERRUPT_SETUP', `${busy} of ${this.#bdf} is connected: disconnect it first`);
    }
    const handles = events.map((eventFd) => (eventFd === undefined ? undefined : nativeEventFdOf(eventFd)));
    const [first = [0, 0], ...others] = this.#grows(kind) ? runs(handles) : [[0, handles.length] as const];
    this.#call(() => this.#device.connectIrqs(index, 0, handles.slice(...first)));
    this.#connected.set(kind, events.length);
    for (const [start, end] of others)
      this.#orNone(kind, () => this.#device.connectIrqs(index, start, handles.slice(start, end)));
    if (kind === 'intx') this.#lookAtPin();
  }

  /**
   * Gives one vector another eventfd; see {@link DeviceInterrupts.reconnect}. If the kernel refuses, the vector is
   * silent, and can be reconnected.
   *
   * @param vector its number within the kind, from 0
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for a vector that the device does not have; `ERR_INTERRUPT_SETUP` for one
   * that is not among the connected ones
   */
  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void {
    const index = indexOf(kind);
    if (!Number.isSafeInteger(vector) || vector < 0) {
      throw this.#error('ERR_INVALID_ARGUMENT', `a vector is a number from 0 on, not ${valueText(vector)}`);
    }
    this.#requireVectors(kind, vector + 1);
    const connected = this.#connected.get(kind) ?? 0;
    if (vector >= connected) {
      const text = `${kind} of ${this.#bdf} is connected with ${connected} vector(s), and ${vector} is none of them`;
      throw this.#error('ERR_INTERRUPT_SETUP', `${text}: disconnect it, and connect as many as are needed`);
    }
    const handle = eventFd === undefined ? undefined : nativeEventFdOf(eventFd);
    this.#call(() => this.#device.connectIrqs(index, vector, [handle]));
  }

  /** Silences a kind as a whole; nothing where it is not connected, or the device is closed. */
  disconnect(kind: InterruptKind): void {
    const index = indexOf(kind);
    if (!this.#connected.has(kind)) return;
    this.#call(() => this.#device.disconnectIrqs(index));
    this.#connected.delete(kind);
  }

  /** The device was closed, and the kernel has disconnected everything. @internal */
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

  /** Lets the pin interrupt again; if it is still asserted, it does at once. */
  unmaskIntx(): void {
    this.#call(() => this.#device.unmaskIntx());
  }

  /**
   * Unmasks the pin whenever the eventfd is signalled, the count of which the kernel takes; `undefined` for no more. It takes the
   * place of the eventfd before, and ends when `intx` is disconnected.
   */
  unmaskIntxOn(eventFd: EventFd | undefined): void {
    const handle = eventFd === undefined ? undefined : nativeEventFdOf(eventFd);
    // The kernel takes one at a time (EBUSY).
    this.#call(() => this.#device.unmaskIntxOn(undefined));
    if (handle !== undefined) this.#call(() => this.#device.unmaskIntxOn(handle));
  }

  /**
   * A pin that was asserted before it was connected need not interrupt: an interrupt controller may have taken its line for
   * one that signals by edges while nobody had it (QEMU's does), and wait for the next. Unmasking has the kernel look at
   * the device itself, and signal what it finds. A pin that did interrupt is signalled once more at most.
   */
  #lookAtPin(): void {
    this.#orNone('intx', () => {
      this.#device.maskIntx();
      this.#device.unmaskIntx();
    });
  }

  /** Does what a connection needs after its first step; if it fails, nothing is connected. */
  #orNone(kind: InterruptKind, act: () => void): void {
    try {
      this.#call(act);
    } catch (error) {
      this.disconnect(kind);
      throw error;
    }
  }

  /** Whether a vector takes its interrupt from the host when it first gets an eventfd, and not when its kind is connected. */
  #grows(kind: InterruptKind): boolean {
    return kind === 'msix' && this.#call(() => this.#device.irqGrows(indexOf(kind)));
  }

  #requireVectors(kind: InterruptKind, wanted: number): void {
    const count = this.count(kind);
    if (wanted <= count) return;
    throw this.#error(
      'ERR_INTERRUPT_UNSUPPORTED',
      `${this.#bdf} has ${count === 0 ? 'no' : `only ${count} vector(s) of`} ${kind}, and ${wanted} are asked for`,
    );
  }

  #error(code: 'ERR_INVALID_ARGUMENT' | 'ERR_INTERRUPT_SETUP' | 'ERR_INTERRUPT_UNSUPPORTED', message: string) {
    return new PeerDmaError(code, message, { device: this.#bdf });
  }

  #call<T>(call: () => T): T {
    return native(call, { device: this.#bdf });
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
 * Where there are eventfds, in runs without a gap. The first run begins with the first vector, whether that has one or not:
 * a kind is connected with one at least.
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
