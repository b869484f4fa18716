/**
 * Allocations of the kernel that fail in ioctls of this process, with `preload/fail-nth.c`.
 */
import { openSync, readSync, readdirSync, writeFileSync, writeSync } from 'node:fs';

/** The ioctl in which an allocation failed. */
export interface FailedCall {
  readonly name: string;
  /** Its result: `OK` if it succeeded nevertheless, or the negative errno. */
  readonly result: string;
}

/** The title of the test of an operation. */
export function titleOf(operation: string): string {
  return `restores everything if an allocation of the kernel fails while ${operation}`;
}

const DEBUG = '/sys/kernel/debug';
/** Numbers of ioctls (Linux, iommufd.h and vfio.h of include/uapi/linux; iommufd_test.h). */
const NAMES: Readonly<Record<number, string>> = {
  0x80: 'DESTROY',
  0x81: 'IOAS_ALLOC',
  0x84: 'IOAS_IOVA_RANGES',
  0x85: 'IOAS_MAP',
  0x86: 'IOAS_UNMAP',
  0x89: 'HWPT_ALLOC',
  0x8a: 'GET_HW_INFO',
  0x8b: 'HWPT_SET_DIRTY_TRACKING',
  0x8c: 'HWPT_GET_DIRTY_BITMAP',
  0x8f: 'IOAS_MAP_FILE',
  0xa0: 'TEST',
  102: 'SET_IOMMU',
  103: 'GROUP_GET_STATUS',
  104: 'GROUP_SET_CONTAINER',
  105: 'GROUP_UNSET_CONTAINER',
  106: 'GROUP_GET_DEVICE_FD',
  108: 'DEVICE_GET_REGION_INFO',
  112: 'IOMMU_GET_INFO',
  113: 'IOMMU_MAP_DMA',
  114: 'IOMMU_UNMAP_DMA',
  117: 'DEVICE_FEATURE',
  118: 'DEVICE_BIND_IOMMUFD',
  119: 'DEVICE_ATTACH_IOMMUFD_PT',
  120: 'DEVICE_DETACH_IOMMUFD_PT',
};

/** Words of `struct control`. */
const [REMAINING, NUMBER, RESULT, WORDS] = [0, 1, 2, 4];
const UNMAP = 0x86;

export class FailNth {
  readonly #fd: number;

  /** Lets allocations of every kind fail in an armed ioctl, also those that wait for memory. */
  constructor() {
    this.#fd = openSync(process.env['FAIL_NTH'] ?? '', 'r+');
    writeFileSync(`${DEBUG}/failslab/ignore-gfp-wait`, 'N');
    writeFileSync(`${DEBUG}/fail_page_alloc/ignore-gfp-wait`, 'N');
    writeFileSync(`${DEBUG}/fail_page_alloc/ignore-gfp-highmem`, 'N');
    writeFileSync(`${DEBUG}/fail_page_alloc/min-order`, '0');
    for (const name of readdirSync(DEBUG)) if (name.startsWith('fail')) writeFileSync(`${DEBUG}/${name}/verbose`, '0');
  }

  /**
   * Lets one allocation fail: the nth from now on in the ioctls of this process.
   *
   * @param unmaps whether it can fail in `IOMMU_IOAS_UNMAP`
   */
  arm(nth: number, unmaps: boolean = true): void {
    writeSync(this.#fd, Buffer.from(Uint32Array.of(nth, 0, 0, unmaps ? 0 : UNMAP).buffer), 0, WORDS * 4, 0);
  }

  /** Returns the ioctl in which the allocation failed, if one has. */
  disarm(): FailedCall | undefined {
    const words = new Int32Array(WORDS);
    readSync(this.#fd, words, 0, WORDS * 4, 0);
    this.arm(0);
    const [remaining = 0, number = 0, result = 0] = [words[REMAINING], words[NUMBER], words[RESULT]];
    if (remaining > 0) return undefined;
    return { name: NAMES[number] ?? String(number), result: result < 0 ? String(result) : 'OK' };
  }
}
