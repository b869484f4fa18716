/**
 * Each allocation of the kernel that fails in a step of dirty tracking, on a mock IOMMU.
 */
import { titleOf } from '../support/fail-nth.ts';
import { LOGS, mockSetting } from '../support/mock-iommu.ts';
import { runPreloaded, sharedFile } from '../support/preload.ts';
import { testScenarios } from '../support/scenarios.ts';

const TITLES = [
  titleOf('a device opens whose IOMMU logs'),
  titleOf('tracking starts'),
  titleOf('a device opens during tracking'),
  'loses no dirty page if an allocation of the kernel fails while they are read',
];

testScenarios({ ivshmem: 2 }, 'CONFIG_IOMMUFD_TEST', TITLES, (t, { ivshmem: [first = '', second = ''] }) => {
  // In this order: the ioctls of the mock fail too, but no other call of its library.
  const libraries = {
    'mock-iommu': mockSetting(sharedFile(t, 'mock-iommu'), { [first]: LOGS, [second]: LOGS }),
    'fail-nth': { FAIL_NTH: sharedFile(t, 'fail-nth'), MALLOC_MMAP_THRESHOLD_: '4096' },
  };
  return runPreloaded(t, 'failing-dirty-tracking', libraries, first, second);
});
