/**
 * Devices behind the mock IOMMU of the kernel's tests, in a program with `preload/mock-iommu.c`.
 */
import { spawnSync } from 'node:child_process';
import { openSync, readSync } from 'node:fs';
import { fileNumberOf } from '../iommufd/support/ioas-rig.ts';
import { descriptorOf } from '../iommufd/support/other-process.ts';

/** Flags of a mock device (`MOCK_FLAGS_DEVICE_NO_DIRTY`). */
export const [LOGS, WITHOUT_LOG] = [0, 1] as const;
/** The addresses that the mock IOMMU translates (`MOCK_APERTURE_START`, `MOCK_APERTURE_LAST`). */
export const APERTURE = { start: 1n << 24n, end: 1n << 31n } as const;

/** The setting of the library: these devices are behind a mock IOMMU, with these flags. */
export function mockSetting(sharedFile: string, devices: Readonly<Record<string, number>>): NodeJS.ProcessEnv {
  const words = Object.entries(devices).map(([bdf, flags]) => `vfio${fileNumberOf(bdf)}=${flags}`);
  return { MOCK_IOMMU: [sharedFile, ...words].join(' ') };
}

/**
 * Lets a mock device write pages. Reads lines of page table, IOVA, length, page size and a bitmap in hexadecimal
 * (`IOMMU_TEST_OP_DIRTY`), and prints the number of pages or the error.
 */
const PROGRAM = `
  open(my $fd, '+<&=', 3) or die $!;
  my ($table, $iova, $length, $size, $bits) = @ARGV;
  my $bitmap = pack('H*', $bits);
  my $dirty = pack('L4 L x4 Q3 P Q L x4', 72, 13, $table, 0, 0, $iova, $length, $size, $bitmap, 0, 0);
  print ioctl($fd, 0x3ba0, $dirty) ? unpack('x56 Q', $dirty) : $!;`;

export class MockIommu {
  readonly #fd: number = openSync((process.env['MOCK_IOMMU'] ?? '').split(' ', 1)[0] ?? '', 'r');

  /** The page table to which a device is attached, by its place in the setting; 0 without one. */
  tableOf(device: number): number {
    const table = new Uint32Array(1);
    readSync(this.#fd, table, 0, 4, 4 * device);
    return table[0] ?? 0;
  }

  /**
   * Marks pages as a write of the device does.
   *
   * @param pages the numbers of pages from `iova` on
   * @returns the number of pages, or the error
   */
  write(device: number, iova: bigint, length: bigint, pages: readonly number[], pageSize: bigint = 4096n): string {
    const bitmap = new Uint8Array(Math.ceil(Number(length / pageSize) / 8 / 8) * 8);
    for (const page of pages) bitmap[page >> 3] = (bitmap[page >> 3] ?? 0) | (1 << (page & 7));
    const args = [this.tableOf(device), iova, length, pageSize, Buffer.from(bitmap).toString('hex')].map(String);
    const { stdout, stderr, status } = spawnSync('perl', ['-e', PROGRAM, ...args], {
      encoding: 'utf8',
      env: {},
      stdio: ['ignore', 'pipe', 'pipe', descriptorOf('/dev/iommu')],
    });
    if (status !== 0) throw new Error(stderr);
    return stdout;
  }
}
