/**
 * Operations in which each allocation of the kernel fails, one after another (`FailNth`).
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type GuestMemory, PeerDmaError, type VfioContainerManager } from '../../../ts/index.ts';
import { FailNth } from './fail-nth.ts';
import { openVfioFiles } from './open-files.ts';
import { pinnedPages } from './pins.ts';

/** The kernel pins pages for its own transfers too, for moments. */
const LOOKS = 200;

/**
 * Regions, mappings, files, and the kernel's counts. An address space that is opened again has another number. Its
 * valid addresses are not compared: without memory, Linux 7.3 attaches a device and does not reserve the addresses of
 * interrupts (`intel_iommu_get_resv_regions`).
 */
function stateOf(memory: GuestMemory, manager: VfioContainerManager): object {
  const containers = manager.inspect().containers.map((container) => ({ ...container, iovaRanges: undefined }));
  const spaces = JSON.stringify([memory.inspect(), containers]).replaceAll(/(vfio-[a-z0-9]+):\d+/g, '$1');
  const locked = /^VmLck:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return { spaces: JSON.parse(spaces) as unknown, files: openVfioFiles().sort(), pinned: pinnedPages(), locked };
}

/** Pages in page tables of IOMMUs. */
function tablePages(): number {
  return Number(/^nr_iommu_pages (\d+)$/m.exec(readFileSync('/proc/vmstat', 'utf8'))?.[1]);
}

/** An operation, and its inverse. */
export interface Operation {
  readonly run: () => Promise<unknown>;
  readonly undo: () => Promise<unknown>;
  /** An ioctl in which allocations must fail; none if the kernel may allocate nothing in the operation. */
  readonly failsIn: string | undefined;
  /** Whether a failed call changes nothing. Default: yes */
  readonly isAtomic?: boolean;
  /** Whether an operation that tolerates a failure always has the same result. Default: yes */
  readonly hasOneResult?: boolean;
  /** Ends the quarantine of ranges that could not be unmapped. Without it, no allocation of an unmap fails. */
  readonly endQuarantine?: () => Promise<unknown>;
}

/** Checks that an allocation has failed in an ioctl. @param failures lines for the log */
export function assertFailedIn(failures: readonly string[], ioctl: string): void {
  const found = failures.some((line) => line.includes(`${ioctl}: `));
  assert.ok(found, `no allocation has failed in ${ioctl}, but: ${failures.join('; ')}`);
}

/** Makes the allocations of operations on a guest fail. */
export class FailingGuest {
  readonly #memory: GuestMemory;
  readonly #manager: VfioContainerManager;
  readonly #fault = new FailNth();

  constructor(memory: GuestMemory, manager: VfioContainerManager) {
    this.#memory = memory;
    this.#manager = manager;
  }

  /** Lets each allocation of an operation fail. Leaves it undone. */
  async failEach({
    run,
    undo,
    failsIn,
    isAtomic = true,
    hasOneResult = true,
    endQuarantine,
  }: Operation): Promise<string[]> {
    await run(); // what the kernel and the package allocate once
    await undo();
    const before = this.#state();
    await run();
    const done = this.#state();
    await undo();
    await this.#reaches(before, 'undone');
    const tables = tablePages();
    const failures = new Map<string, number>();
    for (let nth = 1; ; nth++) {
      let code = 'no error';
      this.#fault.arm(nth, endQuarantine !== undefined);
      try {
        await run();
      } catch (error) {
        if (!(error instanceof PeerDmaError)) throw error;
        code = error.code;
      }
      const failed = this.#fault.disarm();
      const what = `allocation ${nth} fails in ${failed?.name} (${failed?.result}), ${code}`;
      if (code === 'ERR_UNMAP_FAILED') {
        assert.notDeepEqual(this.#memory.inspect().quarantine, []);
        await assert.rejects(run(), { code: 'ERR_RANGE_QUARANTINED' });
        await endQuarantine?.();
        assert.deepEqual(this.#memory.inspect().quarantine, []);
      }
      if (code !== 'no error') {
        if (isAtomic) await this.#reaches(before, what);
        await run();
      }
      if (code !== 'no error' || hasOneResult) await this.#reaches(done, `${what}; repeated`);
      await undo();
      await this.#reaches(before, `${what}; undone`);
      if (failed === undefined) break;
      const kind = `${failed.name}: ${failed.result}, ${code}`;
      failures.set(kind, (failures.get(kind) ?? 0) + 1);
    }
    const grown = tablePages() - tables;
    assert.ok(grown < 16, `the page tables of IOMMUs have grown by ${grown} pages`);
    const lines = [...failures].map(([kind, count]) => `${count} × ${kind}`);
    if (failsIn !== undefined) assertFailedIn(lines, failsIn);
    return lines;
  }

  #state(): object {
    return stateOf(this.#memory, this.#manager);
  }

  /** Waits for a state: the kernel ends some work later. */
  async #reaches(expected: object, what: string): Promise<void> {
    for (let look = 1; look < LOOKS; look++) {
      try {
        assert.deepEqual(this.#state(), expected);
        return;
      } catch {
        await sleep(5);
      }
    }
    assert.deepEqual(this.#state(), expected, what);
  }
}
