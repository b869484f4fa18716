/**
 * The data of a page of `peerdma topology`.
 */

/** The data that is embedded in the page as JSON: pairs by `INITIATOR TARGET`. */
export type PageData = Readonly<Record<string, PairData>>;

/** The description of an initiator and a target. */
export interface PairData {
  readonly title: string;
  readonly reasons: readonly string[];
  readonly prerequisites: readonly string[];
  readonly notes: readonly string[];
  /** The BARs of the target. */
  readonly bars: readonly string[];
  /** Addresses of both devices and of the bridges above them. */
  readonly path: readonly string[];
}
