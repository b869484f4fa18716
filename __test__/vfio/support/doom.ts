/**
 * What `doomed.ts` is told, and what it tells.
 */

/** How it ends, and when. */
export interface Plan {
  readonly edu: string;
  readonly peer: string;
  /** Of RAM. */
  readonly mebibytes: number;
  /** `wait` is for being ended from outside: it says that it is there, and goes on. */
  readonly how: 'SIGKILL' | 'exit' | 'throw' | 'wait';
  /**
   * `start`: before anything is mapped. `pinning`: as soon as so many pages are pinned. `map` and
   * `unmap`: at the event of that number, while a BAR goes from place to place. `running`: so many milliseconds after
   * everything was in place.
   */
  readonly when: 'start' | 'pinning' | 'map' | 'unmap' | 'running';
  readonly count: number;
}

/** What it says of itself in its last moment. */
export interface LastWords {
  readonly pinned: number;
  readonly maps: number;
  readonly unmaps: number;
  readonly opened: boolean;
  /** What it has open of VFIO and iommufd. */
  readonly files: readonly string[];
}

/** Exit status of an end by `exit`. */
export const EXIT_STATUS = 3;
