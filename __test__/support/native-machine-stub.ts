/**
 * A stub of a virtual machine of the native core, for tests without KVM: it executes nothing.
 */
import type { NativeMachine } from '#native';
import type { ExecutionContext } from 'ava';
import { GuestMemory } from '../../ts/index.ts';
import { VirtualMachine, type VirtualMachineOptions } from '../../ts/kvm.ts';
import { nativeError } from './native-error.ts';
import { PAGE } from './pages.ts';

/** Bytes of a processor's exit. */
const CELL = 64;
/** 25 registers, 8 segments of 4 words, 2 tables of 2 words. */
const REGISTER_WORDS = 25 + 8 * 4 + 2 * 2;

type Doorbell = [isPort: boolean, address: bigint, width?: number, value?: bigint];

function doorbellText(...[isPort, address, width, value]: Doorbell): string {
  return [isPort ? 'port' : 'memory', address.toString(16), width ?? [], value ?? []].flat().join(' ');
}

/** As the native core (crates/node/src/kvm.rs). */
const MAX_PROCESSORS = 1024;

/** Records its calls, and succeeds. */
export class NativeMachineStub {
  readonly slots = 509;
  readonly mappingCount = 0;
  /** The calls of the stub that change something. */
  readonly calls: string[] = [];
  /** Whether events cannot be connected. */
  isFull = false;
  /** Whether events cannot be disconnected. */
  isStuck = false;
  readonly #processors: number;
  /** Texts of the connections, by their numbers. */
  readonly #connections: string[] = [];
  #closed = false;

  constructor(processors: number) {
    if (processors > MAX_PROCESSORS) throw nativeError('ERR_INVALID_ARGUMENT', `${processors} processors`);
    this.#processors = processors;
  }

  exitCells(): ArrayBuffer {
    return new ArrayBuffer(this.#processors * CELL);
  }

  map(): null {
    return null;
  }

  async mapAsync(): Promise<null> {
    return null;
  }

  unmap(): [] {
    return [];
  }

  async unmapAsync(): Promise<[]> {
    return [];
  }

  run(): void {
    this.#record('run');
  }

  requestPause(): void {
    this.calls.push('requestPause');
  }

  async pauseAsync(): Promise<void> {
    this.calls.push('pause');
  }

  fail(): void {
    this.calls.push('fail');
  }

  hold(): null {
    return null;
  }

  release(): void {}

  registers(): BigUint64Array {
    return new BigUint64Array(REGISTER_WORDS);
  }

  setRegisters(processor: number): void {
    this.#record(`setRegisters ${processor}`);
  }

  translate(_processor: number, linear: bigint): bigint {
    return linear;
  }

  setLine(line: number, high: boolean): void {
    this.#record(`line ${line} ${high ? 'high' : 'low'}`);
  }

  connect(_event: unknown, gsi: number): number {
    if (this.isFull)
      throw nativeError('ERR_SYSTEM', 'too many open files', { errno: 'EMFILE', syscall: 'ioctl(KVM_IRQFD)' });
    return this.#connect(`${gsi}`);
  }

  disconnect(connection: number): void {
    if (this.isStuck)
      throw nativeError('ERR_SYSTEM', 'out of memory', { errno: 'ENOMEM', syscall: 'ioctl(KVM_IRQFD)' });
    this.#record(`disconnect ${this.#connections[connection]}`);
  }

  setRoutes(routes: BigUint64Array): void {
    this.#record(`routes ${routes.length / 3}`);
  }

  sendMessage(address: bigint, data: number): void {
    this.#record(`message ${address.toString(16)} ${data}`);
  }

  addDoorbell(_event: unknown, ...doorbell: Doorbell): number {
    return this.#connect(doorbellText(...doorbell));
  }

  async closeAsync(): Promise<void> {
    this.#closed = true;
  }

  #connect(what: string): number {
    this.#record(`connect ${what}`);
    return this.#connections.push(what) - 1;
  }

  #record(call: string): void {
    if (this.#closed) throw nativeError('ERR_CLOSED', 'the virtual machine is closed');
    this.calls.push(call);
  }
}

/** As `VirtualMachine.create`, on a stub. */
export async function createWithStub(
  options: VirtualMachineOptions,
): Promise<{ vm: VirtualMachine; stub: NativeMachineStub }> {
  let stub: NativeMachineStub | undefined;
  const create = (processors: number): NativeMachine =>
    (stub = new NativeMachineStub(processors)) as unknown as NativeMachine;
  const vm = await VirtualMachine.createOn({ create }, options);
  if (stub === undefined) throw new Error('no native machine was created');
  return { vm, stub };
}

/** Guest memory of a page, with a virtual machine on a stub. Both are closed at the end of the test. */
export async function stubbedMachine(
  t: ExecutionContext,
  cpus = 1,
): Promise<{ memory: GuestMemory; vm: VirtualMachine; stub: NativeMachineStub }> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  t.teardown(() => memory.close());
  const { vm, stub } = await createWithStub({ memory, cpus });
  t.teardown(() => vm.close()); // teardowns run in reverse
  return { memory, vm, stub };
}
