/**
 * A fake of the native core's machine, whose memory slots can fail on request.
 *
 * No kernel fails at a given call.
 */
import type { NativeFailure, NativeMachine, NativeMapFailure } from '#native';
import { nativeError } from './native-error.ts';

/** Words of a request: address, length, flags, offset. */
const WORDS = 4;

export class FakeMachine {
  /** The slots: start and end in hexadecimal. */
  readonly slots = new Set<string>();
  /** Number of callers that keep the processors out of the guest. */
  holds = 0;
  /** Resolves when the processors have left the guest; `null` if they are out. */
  leaving: Promise<void> | null = null;
  /** Called before each slot is made or removed: it fails if this returns true. */
  fails: (step: string) => boolean = () => false;

  /** The methods that a target of the machine calls. */
  get native(): NativeMachine {
    const map = (_reservation: unknown, _files: unknown, requests: BigUint64Array): NativeMapFailure | null =>
      this.#map(requests);
    const unmap = (ranges: BigUint64Array, all: boolean): NativeFailure[] => this.#unmap(ranges, all);
    return {
      map,
      mapAsync: async (...parts: Parameters<typeof map>) => map(...parts),
      unmap,
      unmapAsync: async (ranges: BigUint64Array, all: boolean) => unmap(ranges, all),
      hold: () => {
        this.holds++;
        return this.leaving;
      },
      release: () => this.holds--,
    } as unknown as NativeMachine;
  }

  #map(requests: BigUint64Array): NativeMapFailure | null {
    const made: string[] = [];
    for (let index = 0; index * WORDS < requests.length; index++) {
      const slot = slotOf(requests[index * WORDS], requests[index * WORDS + 1]);
      if (this.fails(`kvm: map ${slot}`)) {
        for (const one of made) this.slots.delete(one);
        return { failed: { index, error: failure('ERR_MAP_FAILED') }, stillMapped: [] };
      }
      this.slots.add(slot);
      made.push(slot);
    }
    return null;
  }

  #unmap(ranges: BigUint64Array, all: boolean): NativeFailure[] {
    const failures: NativeFailure[] = [];
    for (let index = 0; index * 2 < ranges.length; index++) {
      const slot = slotOf(ranges[index * 2], ranges[index * 2 + 1]);
      if (this.fails(`kvm: unmap ${slot}`)) {
        failures.push({ index, error: failure('ERR_UNMAP_FAILED') });
        if (!all) break;
      } else {
        this.slots.delete(slot);
      }
    }
    return failures;
  }
}

function slotOf(start = 0n, length = 0n): string {
  return `0x${start.toString(16)}..0x${(start + length).toString(16)}`;
}

function failure(code: string): NativeFailure['error'] {
  return nativeError(code, 'no slot', { errno: 'ENOMEM', syscall: 'ioctl(KVM_SET_USER_MEMORY_REGION)' }) as never;
}
