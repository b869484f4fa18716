/**
 * The runs of a virtual machine: its state, and the transitions between states.
 */
import type { NativeMachine } from '#native';
import { type AbortOptions, type AbortSignalLike, readSignal, runAbortable, throwIfAborted } from '../abort.ts';
import { PeerDmaError, throwIf } from '../errors.ts';
import { keepAlive } from '../keep-alive.ts';
import { native, nativeAsync } from '../native-call.ts';
import { endQuietly } from '../registration.ts';

/**
 * The state of a machine.
 *
 * `stopped` before a run and after its end; `running`; `paused` by {@link VirtualMachine.pause}; `failed` after an
 * error of a processor or handler; `closed`. A machine that has failed cannot run again.
 */
export type MachineState = 'stopped' | 'running' | 'paused' | 'failed' | 'closed';

/** The calls of the native core. */
type Processors = Pick<NativeMachine, 'run' | 'requestPause' | 'pauseAsync' | 'fail' | 'reset'>;

/** A run that has not ended. */
interface Run {
  readonly result: Promise<string>;
  readonly resolve: (reason: string) => void;
  readonly reject: (error: unknown) => void;
  /** Ends what keeps the process and the machine alive, and the listener of a signal. */
  readonly release: () => void;
  /** Whether its end was requested. The processors may not be paused yet. */
  isEnding: boolean;
  /** Its error, if it has failed or the machine was closed. */
  error: Error | undefined;
}

/** @internal */
export class MachineRun {
  readonly #processors: Processors;
  readonly #machine: object;
  #state: MachineState = 'stopped';
  #run: Run | undefined;
  /** Identifies the last pause. */
  #pause: object | undefined;
  #failure: Error | undefined;
  /** Whether a processor has shut down, which only a reset ends. */
  #needsReset = false;

  /** @param machine is not garbage-collected during a run */
  constructor(processors: Processors, machine: object) {
    this.#processors = processors;
    this.#machine = machine;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** See {@link VirtualMachine.run}. */
  start(options: AbortOptions = {}): Promise<string> {
    try {
      const signal = readSignal(options);
      throwIfAborted(signal);
      this.#require('stopped', 'run');
      if (this.#needsReset) throw invalid('run failed: a processor has shut down. Call reset first.');
      const run = this.#newRun(signal);
      try {
        native(() => this.#processors.run());
      } catch (error) {
        run.release();
        throw error;
      }
      this.#run = run;
      this.#state = 'running';
      return run.result;
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /** See {@link VirtualMachine.pause}. */
  async pause(options: AbortOptions = {}): Promise<void> {
    const signal = readSignal(options);
    throwIfAborted(signal);
    this.#require('running', 'pause');
    const run = this.#run;
    if (run === undefined || run.isEnding) throw invalid('pause failed: the run is ending. Await it.');
    const pause = (this.#pause = {});
    this.#state = 'paused';
    native(() => this.#processors.requestPause());
    try {
      await runAbortable(signal, () => nativeAsync(() => this.#processors.pauseAsync()));
      // Not by `run.result`, which would count as handled from then on.
      throwIf(run.error);
    } catch (error) {
      const isLast = this.#pause === pause && this.#state === 'paused' && !run.isEnding;
      if (isLast) this.resume();
      throw error;
    }
  }

  /** See {@link VirtualMachine.resume}. */
  resume(): void {
    this.#require('paused', 'resume');
    if (this.#run?.isEnding === true) throw invalid('resume failed: the run is ending. Await it.');
    native(() => this.#processors.run());
    this.#state = 'running';
  }

  /** See {@link VirtualMachine.stop}. */
  stop(reason: string): void {
    this.#end((run) => run.resolve(reason));
  }

  /** Records that a processor has shut down: the machine runs again after a reset. */
  requireReset(): void {
    this.#needsReset = true;
  }

  /** See {@link VirtualMachine.reset}. */
  reset(): void {
    this.#require('stopped', 'reset');
    native(() => this.#processors.reset());
    this.#needsReset = false;
  }

  /** Ends the run with an error. */
  fail(error: Error): void {
    if (this.#state === 'closed') return; // a device may still change its interrupts
    native(() => this.#processors.fail());
    this.#failure ??= error;
    this.#state = 'failed';
    this.#endWith(error);
  }

  /** Ends the run, if there is one. A caller that does not await it gets no unhandled rejection. */
  close(): void {
    this.#state = 'closed';
    if (this.#run === undefined) return;
    this.#run.result.catch(() => {});
    native(() => this.#processors.fail());
    this.#endWith(new PeerDmaError('ERR_CLOSED', 'the virtual machine was closed while it ran'));
  }

  #newRun(signal: AbortSignalLike | undefined): Run {
    let resolve: (reason: string) => void = () => {};
    let reject: (error: unknown) => void = () => {};
    const result = new Promise<string>((settle, fail) => {
      resolve = settle;
      reject = fail;
    });
    const onAbort = (): void => this.#end((run) => run.reject(signal?.reason));
    signal?.addEventListener('abort', onAbort); // first, because a signal of the caller's own class may throw
    const endKeepAlive = keepAlive(this.#machine);
    const release = (): void => {
      endKeepAlive();
      endQuietly(() => signal?.removeEventListener('abort', onAbort));
    };
    return { result, resolve, reject, release, isEnding: false, error: undefined };
  }

  /** Requests the end of the run, if no other end was requested. Settles it when the processors are paused. */
  #end(settle: (run: Run) => void): void {
    const run = this.#run;
    if (run === undefined || run.isEnding) return;
    run.isEnding = true;
    native(() => this.#processors.requestPause());
    const end = (): void => {
      if (this.#run !== run) return; // it has failed, or the machine is closed
      this.#state = 'stopped';
      this.#takeRun();
      settle(run);
    };
    nativeAsync(() => this.#processors.pauseAsync()).then(end, (error: Error) => this.fail(error));
  }

  /** Ends the run, if there is one. The native core has ended the wait of a pause, which has the same error. */
  #endWith(error: Error): void {
    const run = this.#takeRun();
    if (run === undefined) return;
    run.error = error;
    run.reject(error);
  }

  #takeRun(): Run | undefined {
    const run = this.#run;
    this.#run = undefined;
    run?.release();
    return run;
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
