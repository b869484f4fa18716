/**
 * The runs of a virtual machine: its state, and the transitions between states.
 */
import type { NativeMachine } from '#native';
import { PeerDmaError } from '../errors.ts';
import { native, nativeAsync } from '../native-call.ts';

/**
 * The state of a machine.
 *
 * `stopped` before a run and after its end; `running`; `paused` by {@link VirtualMachine.pause}; `failed` after an
 * error of a processor or handler; `closed`. A machine that has failed cannot run again.
 */
export type MachineState = 'stopped' | 'running' | 'paused' | 'failed' | 'closed';

/** The longest delay of a timer, in milliseconds. */
const LONG = 2 ** 31 - 1;

/** A run that has not ended. */
interface Run {
  readonly result: Promise<string>;
  readonly resolve: (reason: string) => void;
  readonly reject: (error: Error) => void;
  /** Keeps the process alive. */
  readonly keepAlive: NodeJS.Timeout;
  /** Whether {@link MachineRun.stop} was called. */
  isEnding: boolean;
}

/** @internal */
export class MachineRun {
  readonly #machine: Pick<NativeMachine, 'run' | 'requestPause' | 'pauseAsync' | 'reset'>;
  #state: MachineState = 'stopped';
  #run: Run | undefined;
  #failure: Error | undefined;
  /** Whether a processor has shut down, which only a reset ends. */
  #needsReset = false;

  constructor(machine: Pick<NativeMachine, 'run' | 'requestPause' | 'pauseAsync' | 'reset'>) {
    this.#machine = machine;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** See {@link VirtualMachine.run}. */
  start(): Promise<string> {
    try {
      this.#require('stopped', 'run');
      if (this.#needsReset) throw invalid('run failed: a processor has shut down. Call reset first.');
      native(() => this.#machine.run());
    } catch (error) {
      return Promise.reject(error as Error);
    }
    this.#run = newRun();
    this.#state = 'running';
    return this.#run.result;
  }

  /** See {@link VirtualMachine.pause}. */
  async pause(): Promise<void> {
    this.#require('running', 'pause');
    const run = this.#run;
    if (run === undefined || run.isEnding) throw invalid('pause failed: the run is ending. Await it.');
    this.#state = 'paused';
    native(() => this.#machine.requestPause());
    // A failure ends the wait: the access that has failed is never answered.
    await Promise.race([nativeAsync(() => this.#machine.pauseAsync()), run.result]);
  }

  /** See {@link VirtualMachine.resume}. */
  resume(): void {
    this.#require('paused', 'resume');
    if (this.#run?.isEnding === true) throw invalid('resume failed: the run is ending. Await it.');
    native(() => this.#machine.run());
    this.#state = 'running';
  }

  /** See {@link VirtualMachine.stop}. The first reason counts. */
  stop(reason: string): void {
    const run = this.#run;
    if (run === undefined || run.isEnding) return;
    run.isEnding = true;
    native(() => this.#machine.requestPause());
    const end = (): void => {
      if (this.#run !== run) return; // it has failed, or the machine is closed
      this.#run = undefined;
      this.#state = 'stopped';
      clearInterval(run.keepAlive);
      run.resolve(reason);
    };
    nativeAsync(() => this.#machine.pauseAsync()).then(end, (error: Error) => this.fail(error));
  }

  /** Records that a processor has shut down: the machine runs again after a reset. */
  requireReset(): void {
    this.#needsReset = true;
  }

  /** See {@link VirtualMachine.reset}. */
  reset(): void {
    this.#require('stopped', 'reset');
    native(() => this.#machine.reset());
    this.#needsReset = false;
  }

  /** Ends the run with an error. */
  fail(error: Error): void {
    if (this.#state === 'closed') return; // a device may still change its interrupts
    native(() => this.#machine.requestPause());
    this.#failure ??= error;
    this.#state = 'failed';
    this.#reject(error);
  }

  /** Ends the run, if there is one. A caller that does not await it gets no unhandled rejection. */
  close(): void {
    this.#state = 'closed';
    this.#run?.result.catch(() => {});
    this.#reject(new PeerDmaError('ERR_CLOSED', 'the virtual machine was closed while it ran'));
  }

  #reject(error: Error): void {
    const run = this.#run;
    this.#run = undefined;
    if (run === undefined) return;
    clearInterval(run.keepAlive);
    run.reject(error);
  }

  #require(state: MachineState, method: string): void {
    if (this.#state === state) return;
    if (this.#state === 'closed') throw new PeerDmaError('ERR_CLOSED', 'the virtual machine is closed');
    throw invalid(`${method} requires that it is ${state}, but it is ${this.#state}`, this.#failure);
  }
}

function invalid(text: string, cause?: Error): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `virtual machine: ${text}`, { cause });
}

function newRun(): Run {
  let resolve: (reason: string) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const result = new Promise<string>((settle, fail) => {
    resolve = settle;
    reject = fail;
  });
  const keepAlive = setInterval(() => {}, LONG);
  return { result, resolve, reject, keepAlive, isEnding: false };
}
