/**
 * Prints the steps of the examples, as those of `peerdma demo`.
 */
export * from '../../ts/cli/demo/report.ts';
