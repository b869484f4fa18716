/**
 * The driver of QEMU's teaching device `edu`, which `peerdma demo` uses too.
 */
export * from '../../ts/cli/demo/edu-driver.ts';
