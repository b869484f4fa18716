/** Declarations with each fault that the check of the reference finds. */

/** Codes. */
export type ErrorCode =
  /** It has a description, and is mentioned below. */
  'ERR_TOLD' | 'ERR_UNTOLD';

interface Hidden {
  /** Described. */
  readonly described: string;
}

/** Described, by {@link Nothing} that is there. */
export interface Faulty {
  readonly bare: string;
  /** Described. */
  readonly nested: { readonly bare: string };
  /** Described. */
  readonly leak: Hidden;
  /** @throws {PeerDmaError} `ERR_TOLD`, `ERR_GONE` */
  onlyTags(): void;
  /** Described, but not what it takes. */
  read(offset: bigint | undefined, options: { readonly length?: number; readonly name?: string }): void;
  /**
   * Described, and what it takes too.
   *
   * @param offset bytes
   * @param options.length bytes
   * @param options.gone bytes
   */
  write(offset: bigint, options: { readonly length: number }): void;
  /** Described. @internal */
  readonly kept: string;
}
