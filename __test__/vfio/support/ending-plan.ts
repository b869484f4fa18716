/**
 * The plan for `programs/ending-process.ts`, and its report.
 */

/** How and when the process ends. */
export interface Plan {
  readonly edu: string;
  readonly peer: string;
  /** Size of RAM. */
  readonly mebibytes: number;
  /** `wait`: the process reports and continues until it is killed. */
  readonly how: 'SIGKILL' | 'exit' | 'throw' | 'wait';
  /**
   * The moment of the end.
   *
   * - `start`: before anything is mapped
   * - `pinning`: as soon as `count` pages are pinned
   * - `map` and `unmap`: at the event of that number, while a BAR moves
   * - `running`: `count` milliseconds after everything is mapped
   */
  readonly when: 'start' | 'pinning' | 'map' | 'unmap' | 'running';
  readonly count: number;
}

/** The state of the process just before its end. */
export interface FinalReport {
  readonly pinned: number;
  readonly maps: number;
  readonly unmaps: number;
  readonly opened: boolean;
  /** Its open files of VFIO and iommufd. */
  readonly files: readonly string[];
}

/** Exit status of `exit`. */
export const EXIT_STATUS = 3;
