/**
 * The plan for `ending-process.ts`, and its report.
 */

/** How and when the process ends. */
export interface Plan {
  readonly edu: string;
  readonly peer: string;
  /** Size of RAM. */
  readonly mebibytes: number;
  /** `wait` : the process reports and continues until it is killed. */
  readonly how: 'SIGKILL' | 'exit' | 'throw' | 'wait';
  /**
   * `start`: before anything is mapped. `pinning`: as soon as so many pages are pinned. `map` and
   * `unmap`: at the event of that number, while a BAR goes from place to place. `running`: so many milliseconds after
   * everything was in place.
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
