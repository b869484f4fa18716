/**
 * The driver of QEMU's educational device `edu`, which `peerdma demo` uses too.
 */
export * from '../../ts/cli/demo/edu-driver.ts';
