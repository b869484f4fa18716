/**
 * The memory slots of a virtual machine as a target: the processors of the guest reach what it maps.
 */
import type { NativeMachine } from '#native';
import { AddressRange } from '../address-range.ts';
import type { IommuLimits, Refusal } from '../dma/refusal.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { KernelTarget } from '../dma/kernel-target.ts';
import { native } from '../native-call.ts';

/**
 * KVM maps pages of 4 KiB, at any address that a processor can use.
 *
 * Source: Linux, Documentation/virt/kvm/api.rst, 4.35.
 */
const LIMITS: IommuLimits = { pageSize: 4096n, iovaRanges: [AddressRange.between(0n, 1n << 52n)] };

/** The reasons of the kernel (Linux, virt/kvm/kvm_main.c, `kvm_set_memory_region`). */
const REASONS: Readonly<Record<string, string>> = {
  EINVAL: 'it exceeds the physical addresses of the processor. Compare "address sizes" in /proc/cpuinfo',
  ENOMEM: 'the kernel has no memory for its page tables. Free memory of the host',
};

/**
 * Maps guest memory, by its host virtual address, for the processors of a virtual machine.
 *
 * @internal
 */
export class MachineTarget extends KernelTarget {
  readonly needsVa = true;
  readonly mapsForProcessors = true;
  protected override readonly clearsLogOnUnmap: boolean = true;
  readonly #machine: NativeMachine;

  constructor(machine: NativeMachine) {
    super(machine, 'kvm', () => LIMITS);
    this.#machine = machine;
  }

  /** Keeps the processors out of the guest until the returned function is called. */
  suspend(): (() => void) | Promise<() => void> {
    const pending = native(() => this.#machine.hold());
    const resume = (): void => this.#machine.release();
    return pending === null ? resume : pending.then(() => resume);
  }

  protected get dirtyPageSize(): bigint {
    return LIMITS.pageSize;
  }

  protected override refused(sub: SubMapping, { errno, syscall, cause }: Refusal): PeerDmaError {
    const { name, range } = sub;
    const reason = REASONS[errno] ?? 'the kernel did not accept the memory slot. Check dmesg for the reason';
    return new PeerDmaError('ERR_MAP_FAILED', `kvm: cannot map "${name}" at ${range}: ${errno}: ${reason}`, {
      errno,
      syscall,
      range,
      target: this.name,
      cause,
    });
  }
}
