/**
 * The report of `at-the-memlock-limit.ts`.
 */

interface Stand {
  /** Bytes that the kernel counts as locked for this process. */
  readonly locked: number;
}

interface Refusal extends Stand {
  readonly code: string;
  readonly errno: string | undefined;
  /** Whether everything is as before the failure. */
  readonly asBefore: boolean;
}

export interface MemlockReport {
  readonly alone: Stand;
  readonly replay: Refusal & { readonly half: boolean };
  readonly both: Stand;
  readonly change: Refusal & { readonly reached: boolean[] };
  readonly after: Stand & { readonly reached: boolean[] };
}
