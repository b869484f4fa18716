/**
 * The interrupts of an assigned device as its guest has set them up: MSI-X with its table, MSI and the pin, with masks and
 * pending bits, over the interrupts that the host takes from the device.
 */
import { PeerDmaError } from '../../errors.ts';
import type { InterruptControl } from '../config/interrupt-control.ts';
import { EventFd } from '../event-fd.ts';
import type { DeviceInterrupts, InterruptKind } from '../physical-function.ts';
import { Connection } from './connection.ts';
import { DevicePending } from './device-pending.ts';
import { GuestSetup, POWER_ON, sameControl } from './guest-setup.ts';
import { requireWithin } from './msix-table.ts';
import { looksAs, seen } from './seen.ts';
import type { InterruptVector } from './vector.ts';
import { valueText } from '../../value-text.ts';

/** What config space says of a device's interrupts for good. */
export interface InterruptShape {
  /** For errors. */
  readonly bdf: string;
  /** Entries of the MSI-X table; 0 where there is none. */
  readonly msixVectors: number;
  /** Reads the device's own pending bits of MSI-X. Offset and length are in bytes, within them. */
  readonly readPending: (offset: number, length: number) => Uint8Array;
}

/**
 * Interrupts on their way from a device to its guest. Each vector has an eventfd that the VMM takes, whatever the guest
 * does; while the guest masks the vector, another one has the device's interrupts, and the pending bit shows them. An entry of
 * MSI-X that the guest has not unmasked since it switched MSI-X on has neither: it is masked in the device, which keeps what it has to say.
 */
export class AssignedInterrupts {
  readonly #device: DeviceInterrupts;
  readonly #bdf: string;
  readonly #setup: GuestSetup;
  readonly #connection: Connection;
  readonly #devicePending: DevicePending;
  /** Whether the device is connected as the guest wants it. It isn't after a failure, until a change succeeds. */
  #settled = true;
  /** Whether nothing is to be connected until the next `configure`, because the device is being reset. */
  #silent = false;
  #onChange: ((vectors: readonly InterruptVector[]) => void) | undefined;
  #resample: EventFd | undefined;
  #closed = false;

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
    this.#setup = new GuestSetup(bdf, counts, (vector) => this.#taken(vector));
    this.#devicePending = new DevicePending(msixVectors, readPending);
    this.#connection = new Connection(device, {
      onPin: () => {
        if (this.#resample !== undefined) device.unmaskIntxOn(this.#resample);
      },
      pending: this.#devicePending,
    });
  }

  /**
   * How many vectors of a kind there are; 0 for none.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  count(kind: InterruptKind): number {
    return this.#setup.vectors(kind).length;
  }

  /**
   * A vector; the same object each time. Messages arrive in it whether it is asked for or not. The pin, errors and requests are
   * connected when somebody first takes their `fd` or listens.
   *
   * @param index its number within the kind, from 0. Default: 0
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` where there is none of that kind, or not as many
   */
  vector(kind: InterruptKind, index = 0): InterruptVector {
    const vectors = this.#setup.vectors(kind);
    const vector = Number.isInteger(index) ? vectors[index] : undefined;
    if (vector !== undefined) return vector;
    const text = `${this.#bdf} has ${vectors.length} vector(s) of ${kind}, which are numbered from 0`;
    throw new PeerDmaError('ERR_INTERRUPT_UNSUPPORTED', `${text}, and not ${valueText(index)}`, { device: this.#bdf });
  }

  /**
   * Calls back with the vectors of which the guest has changed the message, or whether they are enabled: time for a VMM to update
   * its interrupt routing. It is called from within the guest's write, before the first interrupt of its new setup; a second time, with the old one,
   * if the write then fails. What it throws is an uncaught exception.
   *
   * @param callback in place of the one before; `undefined` for none
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  onChange(callback: ((vectors: readonly InterruptVector[]) => void) | undefined): void {
    if (callback !== undefined && typeof callback !== 'function') {
      const text = `what is called on a change is a function, not ${valueText(callback)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { device: this.#bdf });
    }
    this.#onChange = callback;
  }

  /**
   * Lets the pin interrupt again, which it does once and then waits for this: to be called when the guest has signalled the end of
   * its interrupt. If the device still asserts it, it does so at once. Nothing while the pin is not connected.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` where the kernel refuses
   */
  unmaskIntx(): void {
    if (this.#connection.kind === 'intx') this.#device.unmaskIntx();
  }

  /**
   * An eventfd that does the same when it is signalled, for a hypervisor's irqfd with resample. Made on first use, and open until
   * the device is closed.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` where the kernel refuses, `ERR_CLOSED`
   */
  get resampleFd(): number {
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
    return this.#resample.fd;
  }

  /**
   * Connects what config space asks for, after the guest has written to it or it was reset. Compares, and touches only what differs.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` where no eventfds are left; what the device said. All is as before
   * then, and this can be called again
   * @internal
   */
  configure(control: InterruptControl): void {
    this.#requireOpen();
    if (this.#silent) {
      this.#connection.become(undefined); // if it failed before
      this.#silent = false;
    }
    const before = this.#setup.control;
    if (this.#settled && sameControl(before, control)) return;
    const pins = this.#setup.vectors('intx').filter(({ enabled }) => enabled);
    this.#change(
      this.#setup.routed,
      () => (this.#setup.control = control),
      () => (this.#setup.control = before),
    );
    // A pin that goes off is asserted no more; what asserts it when it goes on again is signalled then.
    for (const pin of pins) if (!pin.enabled) pin.forget();
    // A function has pending bits only while the capability is enabled.
    for (const kind of ['msi', 'msix'] as const) {
      if (before[kind]?.enabled !== true || control[kind]?.enabled === true) continue;
      for (const vector of this.#setup.vectors(kind)) vector.forgetPending();
    }
  }

  /**
   * What the guest reads of the MSI-X table.
   *
   * @param offset bytes from the start of the table
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE`, here and below
   * @internal
   */
  readTable(offset: number, length: number): Uint8Array {
    return this.#setup.table.read(offset, length);
  }

  /** The guest writes to the MSI-X table; see {@link AssignedInterrupts.configure}. @internal */
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

  /** What the guest reads of the pending bits of MSI-X. @internal */
  readPending(offset: number, length: number): Uint8Array {
    const vectors = this.#setup.vectors('msix');
    requireWithin(offset, length, this.#devicePending.length, `the pending bits of ${this.#bdf}`, this.#bdf);
    const device = this.#connection.kind === 'msix' ? this.#devicePending.read(offset, length) : new Uint8Array(length);
    return device.map((bits, index) => {
      const first = (offset + index) * 8;
      const own = pendingBits(vectors, first, 8);
      return own | (bits & bitsWhere(8, (bit) => this.#connection.isWithDevice(first + bit)));
    });
  }

  /** The register of pending bits that MSI with mask bits has. @internal */
  msiPending(): number {
    return pendingBits(this.#setup.vectors('msi'), 0, 32);
  }

  /**
   * Disconnects what a guest sets up, before the device is reset; {@link AssignedInterrupts.configure} connects it anew, without
   * the mask that the kernel leaves on a pin that has interrupted. Forgets nothing. Idempotent.
   *
   * @throws {PeerDmaError} what the device said; the next `configure` tries again
   * @internal
   */
  silence(): void {
    this.#requireOpen();
    this.#silent = true;
    this.#settled = false;
    this.#connection.become(undefined);
  }

  /**
   * The device was reset: MSI-X and MSI are off, the table is as after power-on, nothing is pending or on its way, nothing is connected.
   * What has become of config space is for {@link AssignedInterrupts.configure} to hear, which connects.
   *
   * @throws {PeerDmaError} what the device said. All is as before then
   * @internal
   */
  reset(): void {
    this.#requireOpen();
    this.#connection.become(undefined);
    this.#silent = true;
    this.#settled = false;
    this.#announce(this.#setup.routed, () => {
      this.#setup.control = POWER_ON;
      this.#setup.table.reset();
    });
    for (const vector of this.#setup.routed) vector.forget();
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
    this.#setup.control = POWER_ON;
    try {
      this.#connection.become(undefined);
      this.#device.disconnect('error');
      this.#device.disconnect('request');
    } finally {
      // The kernel has its own hold on what is still connected; that ends when the device is closed.
      for (const vector of this.#setup.all) vector.close();
      this.#resample?.close();
    }
  }

  /** Changes what the guest wants, and connects it so; takes the change back where the device refuses. */
  #change(
    vectors: readonly InterruptVector[],
    apply: () => void,
    revert: () => void,
    entries?: { readonly first: number; readonly end: number },
  ): void {
    this.#announce(vectors, apply);
    if (this.#silent) return;
    try {
      const wish = this.#setup.wish();
      // Entries of the table say nothing while MSI-X is off, but for a change that is still to be made.
      if (entries !== undefined && this.#settled && wish?.kind !== 'msix') return;
      const among = this.#settled ? entries : undefined;
      this.#settled = false;
      this.#connection.become(wish, among);
      this.#settled = true;
    } catch (error) {
      this.#announce(vectors, revert);
      throw this.#refused(error);
    }
  }

  /** Tells of the vectors that a change changes. */
  #announce(vectors: readonly InterruptVector[], change: () => void): void {
    const callback = this.#onChange;
    if (callback === undefined) return change();
    const before = vectors.map(seen);
    change();
    const changed = vectors.filter((vector, index) => !looksAs(seen(vector), before[index]));
    if (changed.length === 0) return;
    try {
      callback(changed);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #taken(vector: InterruptVector): void {
    this.#requireOpen();
    const { kind } = vector;
    if (kind === 'error' || kind === 'request') this.#device.connect(kind, [vector.event]);
    if (kind === 'intx' && !this.#silent) this.#connection.become(this.#setup.wish());
  }

  /** The error of a vector that was not connected: a guest that unmasks many may use up the eventfds of the process. */
  #refused(error: unknown): unknown {
    if (!(error instanceof PeerDmaError) || error.code !== 'ERR_SYSTEM') return error;
    const { errno, syscall, message } = error;
    const remedy = 'Raise the limit of open files (RLIMIT_NOFILE), or offer the guest fewer vectors';
    const text = `interrupts of ${this.#bdf}: connecting failed: ${message}. ${remedy}.`;
    return new PeerDmaError('ERR_INTERRUPT_SETUP', text, { device: this.#bdf, errno, syscall, cause: error });
  }

  #requireOpen(): void {
    if (!this.#closed) return;
    throw new PeerDmaError('ERR_CLOSED', `the interrupts of ${this.#bdf} are closed`, { device: this.#bdf });
  }
}

/** Bit 0 is the vector `first`. */
function pendingBits(vectors: readonly InterruptVector[], first: number, count: number): number {
  return bitsWhere(count, (bit) => vectors[first + bit]?.isPending === true);
}

/** A number of up to 32 bits. */
function bitsWhere(count: number, isSet: (bit: number) => boolean): number {
  let bits = 0;
  for (let bit = 0; bit < count; bit++) if (isSet(bit)) bits |= 1 << bit;
  return bits >>> 0;
}
