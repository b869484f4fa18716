/**
 * A virtual machine of KVM, whose processors reach guest memory.
 */
import { NativeMachine } from '#native';
import { readOptions } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { DirtyTracking } from '../guest/dirty-tracking.ts';
import { type DmaMapperHandle, joinPort } from '../guest/dma-mapper-client.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { transaction } from '../guest/transaction.ts';
import { native, nativeAsync } from '../native-call.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { EventFd } from '../event-fd.ts';
import type { AssignedDevice } from '../pci/assigned-device.ts';
import type { PciHostBridge } from '../pci/host-bridge/pci-host-bridge.ts';
import type { AssignedInterrupts } from '../pci/interrupts/assigned-interrupts.ts';
import { requireNumber } from '../number-types.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { valueText } from '../value-text.ts';
import { VirtualCpu } from './cpu.ts';
import { ExitLoop } from './exit-loop.ts';
import { HandledMemory, type MemoryHandler, PortSpace } from './handlers.ts';
import { machineProblem } from './machine-errors.ts';
import { MachineTarget } from './machine-target.ts';
import { mappedMemory } from './mapped-memory.ts';
import { AttachedBridge } from './attached-bridge.ts';
import { type Doorbell, addDoorbell } from './doorbells.ts';
import { DeviceInterruptsConnection } from './device-interrupts.ts';
import { InterruptLine } from './interrupt-line.ts';
import { LINES, MessageRoutes } from './message-routes.ts';
import { cpuFailed, handlerFailed, stopReason, unclaimedAccess } from './stops.ts';

/** Options of {@link VirtualMachine.create}. */
export interface VirtualMachineOptions {
  /** The memory of the guest. */
  readonly memory: GuestMemory;
  /** The number of processors. Default: 1 */
  readonly cpus?: number;
  /**
   * What an access does that no handler and no memory answers. `ones`, as on hardware: a read returns ones, and a write
   * has no effect. `stop`: the run fails with `ERR_CPU_FAILED`. Default: `ones`
   */
  readonly unclaimed?: 'ones' | 'stop';
}

/** Result of {@link VirtualMachine.inspect}, ready for `JSON.stringify`. */
export interface VirtualMachineSnapshot {
  /** Whether the processors execute the guest. */
  readonly state: MachineState;
  /** The number of processors. */
  readonly cpus: number;
  /** Memory slots in use. */
  readonly slots: number;
  /** The largest number of memory slots. */
  readonly maxSlots: number;
  /** The accesses that reached handlers, since the start. */
  readonly exits: { readonly port: number; readonly memory: number; readonly unclaimed: number };
}

/**
 * `stopped` before the first run, and after its end; `running`; `paused` by {@link VirtualMachine.pause}; `failed` after
 * an error of a processor or handler: it cannot run again; `closed`.
 */
export type MachineState = 'stopped' | 'running' | 'paused' | 'failed' | 'closed';

/** The result of a run that has not ended. */
interface Run {
  readonly result: Promise<string>;
  readonly resolve: (reason: string) => void;
  readonly reject: (error: Error) => void;
  /** Keeps the process alive. */
  readonly keepAlive: NodeJS.Timeout;
}

/** The longest delay of a timer, in milliseconds. */
const LONG = 2 ** 31 - 1;

/**
 * A virtual machine.
 *
 * Its processors execute the guest on threads. They reach all active memory directly, and every change of guest memory
 * from then on. Accesses to ports, and to addresses without memory, are answered by handlers on the event loop.
 */
export class VirtualMachine {
  /** The processors. The first one starts; the guest starts the others. */
  readonly cpus: readonly VirtualCpu[];
  /** The handlers of ports. */
  readonly ports: PortSpace;
  /** The handlers of memory. */
  readonly mmio: HandledMemory;
  readonly #machine: NativeMachine;
  readonly #exits: ExitLoop;
  readonly #routes: MessageRoutes;
  readonly #lines: readonly InterruptLine[];
  readonly #bridges = new Set<AttachedBridge>();
  readonly #closing = new Closing();
  readonly #memory: GuestMemory;
  readonly #target: MachineTarget;
  #tracking: DirtyTracking | undefined;
  #mapper: DmaMapperHandle | undefined;
  #state: MachineState = 'stopped';
  #run: Run | undefined;

  private constructor(key: typeof PACKAGE_KEY, memory: GuestMemory, count: number, unclaimed: 'ones' | 'stop') {
    requirePackageKey(key, 'VirtualMachine.create()');
    this.#memory = memory;
    this.ports = new PortSpace();
    this.mmio = new HandledMemory();
    const mapped = mappedMemory(memory);
    this.#exits = new ExitLoop(this.ports, (gpa) => this.mmio.at(gpa) ?? this.#onBridge(gpa) ?? mapped(gpa), {
      failed: (access, error) => this.#fail(handlerFailed(access, error, this.#cpu(access.cpu), memory)),
      unclaimed: (access) => {
        if (unclaimed === 'ones') return true;
        this.#fail(unclaimedAccess(access, this.#cpu(access.cpu), memory));
        return false;
      },
      stopped: (exit) => {
        const reason = stopReason(exit);
        if (reason === undefined) this.#fail(cpuFailed(exit, this.#cpu(exit.cpu), memory));
        else this.stop(reason);
      },
    });
    try {
      this.#machine = NativeMachine.create(count, this.#exits.drain);
    } catch (thrown) {
      throw machineProblem(thrown);
    }
    this.#exits.attach(this.#machine);
    this.#target = new MachineTarget(this.#machine);
    this.#routes = new MessageRoutes(this.#machine);
    this.#lines = Array.from({ length: LINES }, (_, line) => new InterruptLine(PACKAGE_KEY, this.#machine, line));
    this.cpus = Array.from({ length: count }, (_, index) => new VirtualCpu(PACKAGE_KEY, this.#machine, index));
  }

  /**
   * Creates a virtual machine, and maps guest memory for its processors. They are stopped in their power-on state. Close
   * it before the guest memory.
   *
   * @throws {PeerDmaError} `ERR_KVM_UNAVAILABLE` if `/dev/kvm` does not exist; `ERR_PERMISSION` if this user may not open
   * it; `ERR_KVM_UNSUPPORTED`; `ERR_INVALID_ARGUMENT`, also if this guest memory has a virtual machine;
   * `ERR_MAP_FAILED`; `ERR_CLOSED`; `ERR_SYSTEM`
   */
  static async create(options: VirtualMachineOptions): Promise<VirtualMachine> {
    const { memory, cpus = 1, unclaimed = 'ones' } = readOptions(options, ['memory', 'cpus', 'unclaimed']);
    const space = guestAddressSpaceOf(memory);
    requireCount(cpus);
    if (unclaimed !== 'ones' && unclaimed !== 'stop') {
      const text = `unclaimed is 'ones' or 'stop', not ${valueText(unclaimed)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    return transaction(async (undo) => {
      const machine = new VirtualMachine(PACKAGE_KEY, memory, cpus, unclaimed);
      undo.push(() => machine.close());
      machine.#mapper = await joinPort(space, machine.#target, 'best-effort');
      return machine;
    });
  }

  /** The state of the machine. */
  get state(): MachineState {
    return this.#state;
  }

  /**
   * Executes the guest until it stops.
   *
   * @returns the reason: `triple-fault`; `shutdown`, `reset` or `crash` if the guest requested it by KVM; or the argument
   * of {@link VirtualMachine.stop}. The processors are paused then, and can run again
   * @throws {PeerDmaError} `ERR_CPU_FAILED` if a handler fails or a processor cannot execute the guest, with the
   * processor, the access and registers; `ERR_CLOSED` if the machine is closed meanwhile; `ERR_INVALID_ARGUMENT` if it
   * runs or has failed
   */
  async run(): Promise<string> {
    this.#require('stopped', 'run');
    const { promise: result, resolve, reject } = withResolvers<string>();
    const keepAlive = setInterval(() => {}, LONG);
    this.#run = { result, resolve, reject, keepAlive };
    this.#state = 'running';
    native(() => this.#machine.run());
    return result;
  }

  /**
   * Pauses the processors. Resolves when each has completed its access: handlers have to answer meanwhile, so a handler
   * must not await it.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine does not run
   */
  async pause(): Promise<void> {
    this.#require('running', 'pause');
    this.#state = 'paused';
    await nativeAsync(() => this.#machine.pauseAsync());
  }

  /**
   * Continues after {@link VirtualMachine.pause}.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine is not paused
   */
  resume(): void {
    this.#require('paused', 'resume');
    this.#state = 'running';
    native(() => this.#machine.run());
  }

  /**
   * Ends the run: {@link VirtualMachine.run} resolves with the reason when all processors are paused. Handlers can call
   * it. Does nothing if the machine does not run.
   */
  stop(reason: string): void {
    const run = this.#run;
    if (run === undefined) return;
    this.#run = undefined;
    this.#state = 'stopped';
    native(() => this.#machine.requestPause());
    void this.#machine.pauseAsync().then(() => {
      clearInterval(run.keepAlive);
      run.resolve(reason);
    }, run.reject);
  }

  /**
   * Returns the processors and interrupt controllers to their power-on state. Guest memory, handlers and devices stay as
   * they are: reset devices, and load the guest again.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine runs, is paused or has failed; `ERR_CPU_RUNNING` while
   * an access from before its stop waits for an answer; `ERR_CLOSED`, `ERR_SYSTEM`
   */
  reset(): void {
    this.#require('stopped', 'reset');
    native(() => this.#machine.reset());
  }

  /**
   * Returns an interrupt line; the same object each time.
   *
   * @param number 0 to 23
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  line(number: number): InterruptLine {
    requireNumber(number, 'number');
    const line = this.#lines[number];
    if (line !== undefined) return line;
    const text = `an interrupt line has a number from 0 to ${LINES - 1}, not ${valueText(number)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }

  /**
   * Sends an interrupt message (MSI) once.
   *
   * @param address guest-physical
   * @param data 32 bits
   * @throws {PeerDmaError} `ERR_CLOSED`, `ERR_SYSTEM`
   */
  sendMessage(address: bigint, data: number): void {
    native(() => this.#machine.sendMessage(address, data));
  }

  /**
   * Connects a PCI host bridge: its ports, ECAM, the trapped parts of BARs, and the interrupts of its assigned devices,
   * also of those that are added later. Remove a device from the bridge before it is closed.
   *
   * The pin n of the device at slot s is line 16 + (s + n - 1) % 4; INTA# is pin 1.
   *
   * @returns ends that
   * @throws {PeerDmaError} `ERR_OVERLAP` if a handler has one of its ports; as {@link VirtualMachine.connectInterrupts}
   */
  attach(bridge: PciHostBridge): () => void {
    const attached = new AttachedBridge(bridge, this.ports, (device, line) => this.#connect(device, line));
    this.#bridges.add(attached);
    return () => {
      attached.detach();
      this.#bridges.delete(attached);
    };
  }

  /**
   * Connects the interrupts of an assigned device, and follows their set-up by the guest. The kernel delivers each
   * interrupt without JavaScript. Replaces the callback of {@link AssignedInterrupts.onChange}. If KVM cannot follow a
   * change, the run fails with its error.
   *
   * @param options.line the line of the pin. Default: the pin is not connected
   * @returns disconnects them; call it before the device is closed
   * @throws {PeerDmaError} `ERR_SYSTEM`, `ERR_CLOSED`, `ERR_INTERRUPT_SETUP`
   */
  connectInterrupts(interrupts: AssignedInterrupts, options: { readonly line?: InterruptLine } = {}): () => void {
    const line = options.line?.number;
    const failed = (error: unknown): void => this.#fail(asError(error));
    const connection = new DeviceInterruptsConnection(this.#machine, this.#routes, interrupts, line, failed);
    return () => connection.close();
  }

  /**
   * Makes writes of the guest signal an event instead of calling a handler.
   *
   * @param event stays in use when its owner closes it
   * @returns removes the doorbell; later calls do nothing
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_SYSTEM` if the address has such a doorbell (`EEXIST`);
   * `ERR_CLOSED`
   */
  addDoorbell(doorbell: Doorbell, event: EventFd): () => void {
    return addDoorbell(this.#machine, readOptions(doorbell, ['port', 'gpa', 'only'], 'a doorbell'), event);
  }

  /**
   * Starts to log the pages of RAM that the processors write. Handlers write guest memory themselves: their writes are
   * not logged.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if tracking is active already; `ERR_SYSTEM`, `ERR_CLOSED`
   */
  async startDirtyTracking(): Promise<DirtyTracking> {
    if (this.#state === 'closed') throw new PeerDmaError('ERR_CLOSED', 'the virtual machine is closed');
    if (this.#tracking !== undefined) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'dirty tracking is already active. Stop it first');
    }
    const space = guestAddressSpaceOf(this.#memory);
    const tracking = new DirtyTracking(space, () => (this.#tracking = undefined));
    this.#tracking = tracking;
    try {
      await space.betweenChanges(() => tracking.join([this.#target]));
    } catch (error) {
      this.#tracking = undefined;
      throw error;
    }
    return tracking;
  }

  /** Returns state and counts as plain data. */
  inspect(): VirtualMachineSnapshot {
    return {
      state: this.#state,
      cpus: this.cpus.length,
      slots: this.#machine.mappingCount,
      maxSlots: this.#machine.slots,
      exits: { ...this.#exits.counts },
    };
  }

  /**
   * Ends the processors, unmaps guest memory from them, and closes the machine. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: that memory is kept
   */
  close(): Promise<void> {
    return this.#closing.once(async () => {
      this.#end('closed', new PeerDmaError('ERR_CLOSED', 'the virtual machine was closed while it ran'));
      native(() => this.#machine.hold());
      await this.#mapper?.remove();
      await nativeAsync(() => this.#machine.closeAsync());
    });
  }

  /** As {@link VirtualMachine.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VirtualMachine', () => ['', `cpus: ${this.cpus.length}`, this.#state]);
  }

  #cpu(index: number): VirtualCpu {
    return this.cpus[index] as VirtualCpu; // the native core numbers the processors that it was asked for
  }

  /** Connects the interrupts of a device on the bus, and adds a device of VFIO to KVM. Returns a function that ends both. */
  #connect({ device, interrupts }: AssignedDevice, line: number | undefined): () => void {
    const { nativeDevice } = device;
    const disconnect = this.connectInterrupts(interrupts, line === undefined ? {} : { line: this.line(line) });
    if (nativeDevice === undefined) return disconnect;
    try {
      native(() => this.#machine.addDevice(nativeDevice));
    } catch (error) {
      disconnect();
      throw error;
    }
    return () => {
      disconnect();
      native(() => this.#machine.removeDevice(nativeDevice));
    };
  }

  #onBridge(gpa: bigint): MemoryHandler | undefined {
    for (const bridge of this.#bridges) {
      const handler = bridge.at(gpa);
      if (handler !== undefined) return handler;
    }
    return undefined;
  }

  #fail(error: Error): void {
    native(() => this.#machine.requestPause());
    this.#end('failed', error);
  }

  #end(state: 'failed' | 'closed', error: Error): void {
    const run = this.#run;
    this.#run = undefined;
    this.#state = state;
    if (run === undefined) return;
    clearInterval(run.keepAlive);
    run.reject(error);
  }

  #require(state: MachineState, method: string): void {
    if (this.#state === state) return;
    if (this.#state === 'closed') throw new PeerDmaError('ERR_CLOSED', 'the virtual machine is closed');
    const text = `virtual machine: ${method} requires that it is ${state}, but it is ${this.#state}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }
}

function requireCount(cpus: number): void {
  requireNumber(cpus, 'cpus');
  if (Number.isInteger(cpus) && cpus > 0) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"cpus" is a whole number from 1 on, not ${valueText(cpus)}`);
}

function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((settle, fail) => {
    resolve = settle;
    reject = fail;
  });
  return { promise, resolve, reject };
}
