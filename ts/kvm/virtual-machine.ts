/**
 * A virtual machine of KVM, whose processors reach guest memory.
 */
import { NativeMachine } from '#native';
import type { AbortOptions } from '../abort.ts';
import { readOptions } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { DirtyTracking } from '../guest/dirty-tracking.ts';
import { readPeerPolicy } from '../dma/peer-policy.ts';
import { type DmaMapperHandle, joinPort } from '../guest/dma-mapper-client.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { transaction } from '../guest/transaction.ts';
import { native, nativeAsync } from '../native-call.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { EventFd } from '../event-fd.ts';
import { type PciHostBridge, isHostBridge } from '../pci/host-bridge/pci-host-bridge.ts';
import type { AssignedInterrupts } from '../pci/interrupts/assigned-interrupts.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import type { Registration } from '../registration.ts';
import { valueText } from '../value-text.ts';
import { VirtualCpu } from './cpu.ts';
import { Connections } from './connections.ts';
import { ExitLoop } from './exit-loop.ts';
import { HandledMemory, PortSpace } from './handlers.ts';
import { machineProblem } from './machine-errors.ts';
import { type VirtualMachineOptions, readMachineOptions } from './machine-options.ts';
import { MachineRun, type MachineState } from './machine-run.ts';
import { MachineTarget } from './machine-target.ts';
import { mappedMemory } from './mapped-memory.ts';
import { AttachedBridge } from './attached-bridge.ts';
import { type Doorbell, addDoorbell } from './doorbells.ts';
import type { InterruptLine } from './interrupt-line.ts';
import { MachineInterrupts } from './machine-interrupts.ts';
import { RunExits } from './run-exits.ts';

/** Creates machines of the native core. */
type NativeMachines = Pick<typeof NativeMachine, 'create'>;

/** Result of {@link VirtualMachine.inspect}, ready for `JSON.stringify`. */
export interface VirtualMachineSnapshot {
  /** The state of the machine. */
  readonly state: MachineState;
  /** The number of processors. */
  readonly cpus: number;
  /** Memory slots in use. */
  readonly slots: number;
  /** The largest number of memory slots. */
  readonly maxSlots: number;
  /** The accesses that reached the event loop, since the machine was created. */
  readonly exits: {
    /** Accesses to ports. */
    readonly port: number;
    /** Accesses to memory without a slot. */
    readonly memory: number;
    /** Accesses of either kind that no handler and no memory answered. */
    readonly unclaimed: number;
  };
}

/**
 * A virtual machine of KVM, with the interrupt controllers and the timer of a PC.
 *
 * Each processor executes the guest on a thread of its own. It reaches active guest memory without JavaScript, and
 * the memory slots follow each change of guest memory. Handlers on the event loop answer accesses to ports, and to
 * addresses without memory.
 *
 * A machine that runs is not garbage-collected. If a machine that does not run is not closed, it is collected together
 * with its guest memory.
 */
export class VirtualMachine {
  /** The processors. A run starts the first one; the guest starts the others, by INIT and STARTUP messages. */
  readonly cpus: readonly [VirtualCpu, ...VirtualCpu[]];
  /** The handlers of ports. */
  readonly ports: PortSpace = new PortSpace();
  /** The handlers of memory. */
  readonly mmio: HandledMemory = new HandledMemory();
  readonly #machine: NativeMachine;
  readonly #exits: ExitLoop;
  readonly #interrupts: MachineInterrupts;
  #bridge: AttachedBridge | undefined;
  readonly #closing = new Closing();
  /** Whether the processors are kept out of the guest, because the machine closes. */
  #isHeld = false;
  readonly #memory: GuestMemory;
  readonly #target: MachineTarget;
  #tracking: DirtyTracking | undefined;
  #mapper: DmaMapperHandle | undefined;
  readonly #run: MachineRun;
  readonly #connections = new Connections();

  private constructor(key: typeof PACKAGE_KEY, core: NativeMachines, options: Required<VirtualMachineOptions>) {
    requirePackageKey(key, 'VirtualMachine.create()');
    const { memory, cpus, unclaimed } = options;
    this.#memory = memory;
    const mapped = mappedMemory(memory);
    this.#exits = new ExitLoop(this.ports, (gpa) => this.mmio.at(gpa) ?? this.#bridge?.at(gpa) ?? mapped(gpa));
    try {
      this.#machine = core.create(cpus, drainWeakly(this.#exits));
    } catch (thrown) {
      throw machineProblem(thrown);
    }
    this.#run = new MachineRun(this.#machine, this);
    this.#target = new MachineTarget(this.#machine);
    this.#interrupts = new MachineInterrupts(this.#machine, this.#connections);
    const cpu = (index: number): VirtualCpu => new VirtualCpu(PACKAGE_KEY, this.#machine, index);
    this.cpus = [cpu(0), ...Array.from({ length: cpus - 1 }, (_, index) => cpu(index + 1))];
    this.#exits.attach(this.#machine, new RunExits(this.#run, this.cpus, memory, unclaimed));
  }

  /**
   * Creates a virtual machine, and maps guest memory for its processors.
   *
   * The processors are in their power-on state. Guest memory has at most one virtual machine at a time. Close the
   * machine before its guest memory.
   *
   * @throws {PeerDmaError} `ERR_KVM_UNAVAILABLE` if `/dev/kvm` does not exist; `ERR_PERMISSION` if this user may not
   * open it; `ERR_KVM_UNSUPPORTED`; `ERR_UNSUPPORTED_PLATFORM` on other processors than x86-64;
   * `ERR_INVALID_ARGUMENT`, also if this guest memory has a virtual machine; `ERR_MAPPING_LIMIT` for
   * too few memory slots; `ERR_MAP_FAILED`; `ERR_CLOSED`; `ERR_SYSTEM`
   */
  static async create(options: VirtualMachineOptions): Promise<VirtualMachine> {
    return VirtualMachine.createOn(NativeMachine, options);
  }

  /** As {@link VirtualMachine.create}, on machines of the native core or of a stub. @internal */
  static async createOn(core: NativeMachines, options: VirtualMachineOptions): Promise<VirtualMachine> {
    const parts = readMachineOptions(options);
    return transaction(async (undo) => {
      const machine = new VirtualMachine(PACKAGE_KEY, core, parts);
      undo.push(() => machine.close());
      machine.#mapper = await joinPort(guestAddressSpaceOf(parts.memory), machine.#target, readPeerPolicy());
      return machine;
    });
  }

  /** The state of the machine. */
  get state(): MachineState {
    return this.#run.state;
  }

  /**
   * Executes the guest until it stops.
   *
   * The process stays alive meanwhile. A processor that halts waits for an interrupt: that does not end the run.
   *
   * @param options.signal ends the run as {@link VirtualMachine.stop} does, and the machine can run again. A run that
   * has not started does not start. Default: none
   * @returns a {@link StopReason}, or the argument of {@link VirtualMachine.stop}. The processors are paused then, and
   * the machine can run again; after `triple-fault`, once it is reset
   * @throws the reason of the signal, when all processors are paused
   * @throws {PeerDmaError} `ERR_CPU_FAILED` if a handler fails or a processor cannot execute the guest. The error of a
   * change of interrupts that KVM rejects. `ERR_CLOSED` if the machine is closed meanwhile. `ERR_INVALID_ARGUMENT` if
   * it runs, has failed, or requires a reset
   */
  run(options: AbortOptions = {}): Promise<string> {
    return this.#run.start(options);
  }

  /**
   * Pauses the processors.
   *
   * Resolves when each processor has completed its access, or {@link VirtualMachine.resume} was called. Handlers have
   * to answer meanwhile, so a handler must not await it.
   *
   * @param options.signal ends the wait at once, and the processors continue. Default: none
   * @throws the reason of the signal
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine does not run; the error of a run that fails meanwhile
   */
  pause(options: AbortOptions = {}): Promise<void> {
    return this.#run.pause(options);
  }

  /**
   * Continues after {@link VirtualMachine.pause}.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine is not paused
   */
  resume(): void {
    this.#run.resume();
  }

  /**
   * Ends the run. {@link VirtualMachine.run} resolves with the reason when all processors are paused.
   *
   * Handlers can call it. Of several reasons, the abort of a signal included, the first counts. Does nothing if the
   * machine does not run.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a reason that is not a string
   */
  stop(reason: string): void {
    if (typeof reason !== 'string') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"reason" is a string, not ${valueText(reason)}`);
    }
    this.#run.stop(reason);
  }

  /**
   * Returns the processors and interrupt controllers to their power-on state.
   *
   * Guest memory, handlers and devices stay as they are: reset devices, and load the guest again.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine runs, is paused or has failed; `ERR_CPU_RUNNING` while
   * an access from before its stop waits for an answer; `ERR_CLOSED`, `ERR_SYSTEM`
   */
  reset(): void {
    this.#run.reset();
  }

  /**
   * Returns an interrupt line; the same object each time.
   *
   * @param number 0 to 23
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  line(number: number): InterruptLine {
    return this.#interrupts.line(number);
  }

  /**
   * Sends an interrupt message (MSI) once.
   *
   * @param address guest-physical
   * @param data 32 bits
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`, `ERR_SYSTEM`
   */
  sendMessage(address: bigint, data: number): void {
    this.#interrupts.sendMessage(address, data);
  }

  /**
   * Connects a PCI host bridge.
   *
   * The bridge answers accesses to its ports, to ECAM and to the trapped parts of BARs. The interrupts of its assigned
   * devices are connected as by {@link VirtualMachine.connectInterrupts}, also those of devices that are added later.
   * Remove a device from the bridge before the device is closed. Pin n of device number d is line 16 + (d + n - 1) % 4;
   * INTA# is pin 1.
   *
   * @returns the registration, whose removal disconnects the bridge
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, also if another machine has the bridge, or if the bridge or one of
   * its devices has another guest memory; `ERR_OVERLAP` if the machine has a bridge, or a handler has one of its ports;
   * `ERR_CLOSED`; as {@link VirtualMachine.connectInterrupts}
   */
  attach(bridge: PciHostBridge): Registration {
    if (!isHostBridge(bridge)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a PciHostBridge is expected. Pass one of this package.');
    }
    this.#requireOpen();
    if (this.#bridge !== undefined) {
      const text = 'virtual machine: attaching a bridge failed: it has one, whose ports a second would have as well';
      throw new PeerDmaError('ERR_OVERLAP', `${text}. Remove the first, or add functions to its other buses.`);
    }
    if (bridge.memory !== undefined && bridge.memory !== this.#memory) {
      const text = 'virtual machine: attaching a bridge failed: the bridge has another guest memory';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}. Create it with the memory of the machine.`);
    }
    const attached = new AttachedBridge(bridge, {
      core: this.#machine,
      memory: this.#memory,
      ports: this.ports,
      connectInterrupts: (interrupts, line) =>
        this.connectInterrupts(interrupts, line === undefined ? {} : { line: this.line(line) }),
    });
    this.#bridge = attached;
    return this.#connections.add(() => {
      if (this.#bridge === attached) this.#bridge = undefined;
      attached.detach();
    });
  }

  /**
   * Connects the interrupts of an assigned device, and follows their set-up by the guest.
   *
   * The kernel delivers each interrupt without JavaScript. If KVM cannot follow a change, the run fails with its error.
   *
   * @param options.line the line of the pin. Default: the pin is not connected
   * @returns the connection; remove it before the device is closed
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, also for a line of another machine, and if the interrupts are
   * connected already; `ERR_SYSTEM`, `ERR_CLOSED`, `ERR_INTERRUPT_SETUP`
   */
  connectInterrupts(interrupts: AssignedInterrupts, options: { readonly line?: InterruptLine } = {}): Registration {
    const { line } = readOptions(options, ['line']);
    this.#requireOpen();
    return this.#interrupts.connect(interrupts, line, (error) => this.#run.fail(asError(error)));
  }

  /**
   * Makes writes of the guest signal an event instead of calling a handler (ioeventfd).
   *
   * @param doorbell the writes
   * @param event stays in use when its owner closes it
   * @returns the registration of the doorbell
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_SYSTEM` if the address has such a doorbell (`EEXIST`);
   * `ERR_CLOSED`
   */
  addDoorbell(doorbell: Doorbell, event: EventFd): Registration {
    return this.#connections.add(addDoorbell(this.#machine, doorbell, event));
  }

  /**
   * Starts to log the pages of RAM that the processors write.
   *
   * Writes by this process are not logged: those of handlers, and those to a slot that is being changed.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if tracking is active already; `ERR_SYSTEM`, `ERR_CLOSED`
   */
  async startDirtyTracking(): Promise<DirtyTracking> {
    this.#requireOpen();
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
      state: this.state,
      cpus: this.cpus.length,
      slots: this.#machine.mappingCount,
      maxSlots: this.#machine.slots,
      exits: { ...this.#exits.counts },
    };
  }

  /**
   * Ends the processors, unmaps guest memory from them, and closes the machine. Idempotent.
   *
   * A run that has not ended rejects with `ERR_CLOSED`.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: that memory is kept
   */
  close(): Promise<void> {
    return this.#closing.once(async () => {
      this.#run.close();
      if (!this.#isHeld) {
        await native(() => this.#machine.hold());
        this.#isHeld = true;
      }
      try {
        this.#connections.endAll();
      } catch {
        // Closing the machine ends them as well.
      }
      this.#tracking?.keep([]);
      await this.#mapper?.remove().catch(() => {}); // closing removes the slots as well
      await nativeAsync(() => this.#machine.closeAsync());
      await guestAddressSpaceOf(this.#memory).targetClosed(this.#target);
    });
  }

  /** As {@link VirtualMachine.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #requireOpen(): void {
    if (this.state === 'closed') throw new PeerDmaError('ERR_CLOSED', 'the virtual machine is closed');
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VirtualMachine', () => ['', `cpus: ${this.cpus.length}`, this.state]);
  }
}

/** The native core refers to the callback while the machine exists, and the loop to the machine. */
function drainWeakly(exits: ExitLoop): () => void {
  const loop = new WeakRef(exits);
  return () => loop.deref()?.drain();
}
