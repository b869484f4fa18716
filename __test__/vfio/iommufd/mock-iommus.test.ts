/**
 * iommufd with a second kind of IOMMU: the mock IOMMU of the kernel's tests (CONFIG_IOMMUFD_TEST). It logs dirty pages,
 * and translates other addresses than that of the machine.
 */
import { LOGS, WITHOUT_LOG, mockSetting } from '../support/mock-iommu.ts';
import { runPreloaded, sharedFile } from '../support/preload.ts';
import { testScenarios } from '../support/scenarios.ts';

const TITLES = [
  'returns each page that a device has written once',
  'returns all pages of a larger page of the IOMMU, in which a device has written one',
  'keeps the dirty pages outside of the requested range for a later call',
  'returns a page that was written before it was unmapped, when RAM is mapped there again',
  'logs a device that opens while tracking is active, and stops the log of all',
  'refuses tracking while the IOMMU of one of the devices does not log',
  'maps memory into two IOMMUs that share an address space, and restricts it to what both translate',
  'opens a device in a new address space if its IOMMU cannot translate what is mapped in the existing one',
  'does not open a device whose IOMMU cannot translate RAM',
];

const NEEDS = { edu: 2, ivshmem: 2, nvme: 1 };

testScenarios(NEEDS, 'CONFIG_IOMMUFD_TEST', TITLES, (t, { edu, ivshmem, nvme: [peer = ''] }) => {
  const [engine = '', first = ''] = edu;
  const [second = '', unlogged = ''] = ivshmem;
  const setting = mockSetting(sharedFile(t, 'mock-iommu'), { [first]: LOGS, [second]: LOGS, [unlogged]: WITHOUT_LOG });
  return runPreloaded(t, 'mock-iommus', { 'mock-iommu': setting }, first, second, unlogged, engine, peer);
});
