/**
 * Each allocation of the kernel that fails in an operation of the package (CONFIG_FAULT_INJECTION).
 *
 * Afterwards, everything is as before: regions, flat map, mappings, open files, pinned and locked pages. The repeated
 * operation succeeds, and can be undone.
 */
import { titleOf } from './support/fail-nth.ts';
import { runPreloaded, sharedFile } from './support/preload.ts';
import { testScenarios } from './support/scenarios.ts';

const OPERATIONS = [
  'a device opens',
  'a second device opens',
  'a region is mapped',
  'a region is unmapped',
  'a BAR is mapped',
  'a BAR is moved',
  'a BAR is unmapped',
  'a device closes',
  'the last device closes',
];

// An ivshmem has no interrupt pin. With one, ACPI allocates memory while the kernel enables the device, and Linux 7.3
// accesses a wrong address if that fails (acpi_ut_update_object_reference, from acpi_pci_irq_lookup).
testScenarios({ ivshmem: 2 }, 'CONFIG_FAILSLAB', OPERATIONS.map(titleOf), (t, { ivshmem: [first = '', second = ''] }) =>
  runPreloaded(t, 'failing-allocations', { 'fail-nth': { FAIL_NTH: sharedFile(t, 'fail-nth') } }, first, second),
);
