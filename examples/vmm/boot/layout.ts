/**
 * The addresses of the parts that the boot loader places below 1 MiB.
 *
 * The kernel copies or replaces all of them before it uses their RAM.
 */

export const GDT = 0x1000n;
export const BOOT_PARAMS = 0x2000n;
/** Six pages: the top table, the table below it, and four directories. */
export const PAGE_TABLES = 0x3000n;
export const COMMAND_LINE = 0x1_0000n;
/** The end of RAM below 1 MiB. Firmware tables have their place between it and 1 MiB. */
export const LOW_MEMORY_END = 0xa_0000n;
export const HIGH_MEMORY = 0x10_0000n;
