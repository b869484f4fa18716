/**
 * Effects of exits on the run of a machine: its end, or its failure.
 */
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { VirtualCpu } from './cpu.ts';
import type { ExitReceiver, GuestAccessExit, StoppedExit } from './exit-loop.ts';
import type { VirtualMachineOptions } from './machine-options.ts';
import type { MachineRun } from './machine-run.ts';
import { cpuFailed, handlerFailed, stopReason, unclaimedAccess } from './stops.ts';

/** @internal */
export class RunExits implements ExitReceiver {
  readonly #run: MachineRun;
  readonly #cpus: readonly VirtualCpu[];
  readonly #memory: GuestMemory;
  readonly #unclaimed: VirtualMachineOptions['unclaimed'];

  constructor(
    run: MachineRun,
    cpus: readonly VirtualCpu[],
    memory: GuestMemory,
    unclaimed: VirtualMachineOptions['unclaimed'],
  ) {
    this.#run = run;
    this.#cpus = cpus;
    this.#memory = memory;
    this.#unclaimed = unclaimed;
  }

  failed(access: GuestAccessExit, error: Error): void {
    this.#run.fail(handlerFailed(access, error, this.#cpu(access), this.#memory));
  }

  unclaimed(access: GuestAccessExit): boolean {
    if (this.#unclaimed === 'ones') return true;
    this.#run.fail(unclaimedAccess(access, this.#cpu(access), this.#memory));
    return false;
  }

  stopped(exit: StoppedExit): void {
    const reason = stopReason(exit);
    if (reason === undefined) this.#run.fail(cpuFailed(exit, this.#cpu(exit), this.#memory));
    else this.#run.stop(reason);
    if (reason === 'triple-fault') this.#run.requireReset();
  }

  #cpu({ cpu }: { readonly cpu: number }): VirtualCpu {
    return this.#cpus[cpu] as VirtualCpu; // the native core numbers the processors that it was asked for
  }
}
