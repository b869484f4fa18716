/**
 * The interrupts of an assigned device as its guest configures them: MSI-X, MSI and the pin.
 *
 * Masks and pending bits are emulated on top of the host's interrupts.
 */
import { PeerDmaError } from '../../errors.ts';
import type { InterruptControl } from '../config/interrupt-control.ts';
import { requireNumber } from '../../number-types.ts';
import { EventFd } from '../../event-fd.ts';
import { Registration } from '../../registration.ts';
import type { DeviceInterrupts, InterruptKind } from '../physical-function.ts';
import { Connection } from './connection.ts';
import { DevicePending } from './device-pending.ts';
import { GuestSetup, POWER_ON, sameControl } from './guest-setup.ts';
import { requireWithin } from './msix-table.ts';
import { sameRouting, routingOf } from './vector-routing.ts';
import type { InterruptVector } from './vector.ts';
import { valueText } from '../../value-text.ts';

/** The fixed interrupt properties of a device. */
export interface InterruptShape {
  /** For errors. */
  readonly bdf: string;
  /** Entries of the MSI-X table; 0 for none. */
  readonly msixVectors: number;
  /** Reads the device's own MSI-X pending bits. Offset and length are in bytes, relative to them. */
  readonly readPending: (offset: number, length: number) => Uint8Array;
}

/** Receives the vectors that have changed. */
type VectorsCallback = (vectors: readonly InterruptVector[]) => void;

/** Whether any value is the interrupts of an assigned device. @internal */
export let isAssignedInterrupts: (value: unknown) => value is AssignedInterrupts;

/**
 * Routes interrupts from a device to its guest.
 *
 * Each vector has one eventfd for the VMM, whatever the guest does. While the guest masks the vector, a second eventfd
 * counts the interrupts, and the pending bit reports them. An MSI-X entry that the guest has not unmasked since it
 * enabled MSI-X has no eventfd: it is masked in the device, which records a pending message.
 */
export class AssignedInterrupts {
  readonly #device: DeviceInterrupts;
  readonly #bdf: string;
  readonly #setup: GuestSetup;
  readonly #connection: Connection;
  readonly #devicePending: DevicePending;
  /** Whether the connection matches the guest's set-up. False after a failure, until a change succeeds. */
  #inSync = true;
  /** Whether connecting is suspended until the next `configure`, during a reset of the device. */
  #suspended = false;
  #onChange: VectorsCallback | undefined;
  /** Of a virtual machine. */
  #watcher: VectorsCallback | undefined;
  #resample: EventFd | undefined;
  #closed = false;

  static {
    isAssignedInterrupts = (value): value is AssignedInterrupts =>
      typeof value === 'object' && value !== null && #connection in value;
  }

  /** @internal */
  constructor(device: DeviceInterrupts, { bdf, msixVectors, readPending }: InterruptShape) {
    this.#device = device;
    this.#bdf = bdf;
    const counts = {
      intx: device.count('intx'),
      msi: device.count('msi'),
      msix: msixVectors,
      error: device.count('error'),
      request: device.count('request'),
    };
    this.#setup = new GuestSetup(bdf, counts, (vector) => this.#connectOnFirstUse(vector));
    this.#devicePending = new DevicePending(msixVectors, readPending);
    this.#connection = new Connection(device, {
      onPin: () => {
        if (this.#resample !== undefined) device.unmaskIntxOn(this.#resample);
      },
      pending: this.#devicePending,
    });
  }

  /**
   * Returns how many vectors of a kind the device has; 0 for none.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  count(kind: InterruptKind): number {
    return this.#setup.vectors(kind).length;
  }

  /**
   * Returns a vector; the same object each time.
   *
   * MSI and MSI-X vectors are always connected as the guest configures them. The pin, errors and requests are
   * connected on the first access to `fd` or the first listener.
   *
   * @param index its number within the kind, from 0. Default: 0
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` if the device has no such vector
   */
  vector(kind: InterruptKind, index = 0): InterruptVector {
    const vectors = this.#setup.vectors(kind);
    requireNumber(index, 'index', this.#bdf);
    const vector = Number.isInteger(index) ? vectors[index] : undefined;
    if (vector !== undefined) return vector;
    const text = `${this.#bdf} has ${vectors.length} vector(s) of ${kind}, numbered from 0`;
    throw new PeerDmaError('ERR_INTERRUPT_UNSUPPORTED', `${text}, and not ${valueText(index)}`, { bdf: this.#bdf });
  }

  /**
   * Sets the callback for changes of vectors: their message, or whether they are enabled.
   *
   * Use it to update the VMM's interrupt routing. It is called during the guest's write, before the first interrupt of
   * the new set-up, and again with the old set-up if the write then fails. An error that it throws becomes an uncaught
   * exception.
   *
   * @param callback replaces the previous one; `undefined` removes it
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  onChange(callback: ((vectors: readonly InterruptVector[]) => void) | undefined): void {
    if (callback !== undefined && typeof callback !== 'function') {
      const text = `the callback for changes must be a function, not ${valueText(callback)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf: this.#bdf });
    }
    this.#onChange = callback;
  }

  /**
   * Calls back as {@link AssignedInterrupts.onChange}, before its callback, for a virtual machine.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if there is such a callback
   * @internal
   */
  watchVectors(changed: VectorsCallback): Registration {
    if (this.#watcher !== undefined) {
      const text = `the interrupts of ${this.#bdf} are connected to a virtual machine already`;
      const remedy = 'Remove that connection first, or its device from the bridge that is attached';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}. ${remedy}`, { bdf: this.#bdf });
    }
    this.#watcher = changed;
    return new Registration(() => (this.#watcher = undefined));
  }

  /**
   * Unmasks the pin, which is masked after each interrupt. Call it on the guest's end of interrupt.
   *
   * If the device still asserts the pin, it interrupts at once. Does nothing while the pin is not connected.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` if the kernel rejects it
   */
  unmaskIntx(): void {
    if (this.#connection.kind === 'intx') this.#device.unmaskIntx();
  }

  /**
   * An eventfd that unmasks the pin when it is signalled, for a hypervisor's irqfd with resample.
   *
   * Created on first use, and open until the device is closed.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` if the kernel rejects it; `ERR_CLOSED`
   */
  get resampleFd(): number {
    return this.resampleEvent.fd;
  }

  /** The event of {@link AssignedInterrupts.resampleFd}. @internal */
  get resampleEvent(): EventFd {
    if (this.#resample === undefined) {
      this.#requireOpen();
      const made = EventFd.create();
      try {
        if (this.#connection.kind === 'intx') this.#device.unmaskIntxOn(made);
      } catch (error) {
        made.close();
        throw error;
      }
      this.#resample = made;
    }
    return this.#resample;
  }

  /**
   * Connects the interrupts that config space enables, after a guest write or a reset. Applies only differences.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` if no eventfds are left; the error of the device. The previous state
   * is kept then, and the call can be repeated
   * @internal
   */
  configure(control: InterruptControl): void {
    this.#requireOpen();
    if (this.#suspended) {
      this.#connection.apply(undefined); // in case that it failed before
      this.#suspended = false;
    }
    const before = this.#setup.control;
    if (this.#inSync && sameControl(before, control)) return;
    const pins = this.#setup.vectors('intx').filter(({ enabled }) => enabled);
    this.#change(
      this.#setup.routed,
      () => (this.#setup.control = control),
      () => (this.#setup.control = before),
    );
    // A pin that is disabled is no longer asserted. If it is asserted when it is enabled, it is signalled then.
    for (const pin of pins) if (!pin.enabled) pin.clear();
    // Pending bits exist only while the capability is enabled.
    for (const kind of ['msi', 'msix'] as const) {
      if (before[kind]?.enabled !== true || control[kind]?.enabled === true) continue;
      for (const vector of this.#setup.vectors(kind)) vector.clearPending();
    }
  }

  /**
   * Reads the MSI-X table for the guest.
   *
   * @param offset bytes from the start of the table
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE`, also for the methods below
   * @internal
   */
  readTable(offset: number, length: number): Uint8Array {
    return this.#setup.table.read(offset, length);
  }

  /** Writes the MSI-X table for the guest; see {@link AssignedInterrupts.configure}. @internal */
  writeTable(offset: number, bytes: Uint8Array): void {
    this.#requireOpen();
    const kept = this.#setup.table.read(offset, bytes.length);
    const entries = this.#setup.table.entriesAt(offset, bytes.length);
    this.#change(
      this.#setup.vectors('msix').slice(entries.first, entries.end),
      () => this.#setup.table.write(offset, bytes),
      () => this.#setup.table.write(offset, kept),
      entries,
    );
  }

  /** Reads the MSI-X pending bits for the guest. @internal */
  readPending(offset: number, length: number): Uint8Array {
    const vectors = this.#setup.vectors('msix');
    requireWithin(offset, length, this.#devicePending.length, `the pending bits of ${this.#bdf}`, this.#bdf);
    const device = this.#connection.kind === 'msix' ? this.#devicePending.read(offset, length) : new Uint8Array(length);
    return device.map((bits, index) => {
      const first = (offset + index) * 8;
      const own = pendingBits(vectors, first, 8);
      return own | (bits & bitsWhere(8, (bit) => this.#connection.isMaskedInDevice(first + bit)));
    });
  }

  /** The register of pending bits of MSI. @internal */
  msiPending(): number {
    return pendingBits(this.#setup.vectors('msi'), 0, 32);
  }

  /**
   * Disconnects the guest's interrupts before a reset of the device. Keeps all state. Idempotent.
   *
   * {@link AssignedInterrupts.configure} connects them again, without the kernel's mask on a pin that has interrupted.
   *
   * @throws {PeerDmaError} the error of the device; the next `configure` retries
   * @internal
   */
  suspend(): void {
    this.#requireOpen();
    this.#suspended = true;
    this.#inSync = false;
    this.#connection.apply(undefined);
  }

  /**
   * Restores the power-on state after a reset: MSI-X and MSI off, nothing pending or connected.
   *
   * {@link AssignedInterrupts.configure} connects the interrupts of the new config space.
   *
   * @throws {PeerDmaError} the error of the device. The previous state is kept then
   * @internal
   */
  reset(): void {
    this.#requireOpen();
    this.#connection.apply(undefined);
    this.#suspended = true;
    this.#inSync = false;
    this.#reportChange(this.#setup.routed, () => {
      this.#setup.control = POWER_ON;
      this.#setup.table.reset();
    });
    for (const vector of this.#setup.routed) vector.clear();
  }

  /**
   * Disconnects everything and closes the eventfds. Idempotent.
   *
   * @internal
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onChange = undefined;
    this.#watcher = undefined;
    this.#setup.control = POWER_ON;
    try {
      this.#connection.apply(undefined);
      this.#device.disconnect('error');
      this.#device.disconnect('request');
    } finally {
      // The kernel holds references to connected eventfds until the device is closed.
      for (const vector of this.#setup.all) vector.close();
      this.#resample?.close();
    }
  }

  /** Applies a change of the guest's set-up and connects it; reverts the change if the device rejects it. */
  #change(
    vectors: readonly InterruptVector[],
    apply: () => void,
    revert: () => void,
    entries?: { readonly first: number; readonly end: number },
  ): void {
    this.#reportChange(vectors, apply);
    if (this.#suspended) return;
    try {
      const desired = this.#setup.desiredConnection();
      // While MSI-X is off, entries of the table have no effect, except for a change that is still to be applied.
      if (entries !== undefined && this.#inSync && desired?.kind !== 'msix') return;
      const among = this.#inSync ? entries : undefined;
      this.#inSync = false;
      this.#connection.apply(desired, among);
      this.#inSync = true;
    } catch (error) {
      this.#reportChange(vectors, revert);
      throw this.#connectError(error);
    }
  }

  /** Applies a change and reports the changed vectors to the callbacks. */
  #reportChange(vectors: readonly InterruptVector[], change: () => void): void {
    const callbacks = [this.#watcher, this.#onChange].filter((callback) => callback !== undefined);
    if (callbacks.length === 0) return change();
    const before = vectors.map(routingOf);
    change();
    const changed = vectors.filter((vector, index) => !sameRouting(routingOf(vector), before[index]));
    if (changed.length === 0) return;
    for (const callback of callbacks) {
      try {
        callback(changed);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #connectOnFirstUse(vector: InterruptVector): void {
    this.#requireOpen();
    const { kind } = vector;
    if (kind === 'error' || kind === 'request') this.#device.connect(kind, [vector.event]);
    if (kind === 'intx' && !this.#suspended) this.#connection.apply(this.#setup.desiredConnection());
  }

  /**
   * Returns the error for a failed connection. A guest that unmasks many vectors may exhaust the process's file
   * descriptors.
   */
  #connectError(error: unknown): unknown {
    if (!(error instanceof PeerDmaError) || error.code !== 'ERR_SYSTEM') return error;
    const { errno, syscall, message } = error;
    const remedy = 'Raise the limit of open files (RLIMIT_NOFILE), or assign a device with fewer vectors';
    const text = `interrupts of ${this.#bdf}: connecting failed: ${message}. ${remedy}.`;
    return new PeerDmaError('ERR_INTERRUPT_SETUP', text, { bdf: this.#bdf, errno, syscall, cause: error });
  }

  #requireOpen(): void {
    if (!this.#closed) return;
    throw new PeerDmaError('ERR_CLOSED', `the interrupts of ${this.#bdf} are closed`, { bdf: this.#bdf });
  }
}

/** Returns pending bits; bit 0 is the vector `first`. */
function pendingBits(vectors: readonly InterruptVector[], first: number, count: number): number {
  return bitsWhere(count, (bit) => vectors[first + bit]?.isPending === true);
}

/** Builds a number of up to 32 bits. */
function bitsWhere(count: number, isSet: (bit: number) => boolean): number {
  let bits = 0;
  for (let bit = 0; bit < count; bit++) if (isSet(bit)) bits |= 1 << bit;
  return bits >>> 0;
}
