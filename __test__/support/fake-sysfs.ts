/**
 * Fake /sys folder with devices and groups.
 */
import type { ExecutionContext } from 'ava';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostMachine } from '../../ts/host.ts';
import { isMediatedName } from '../../ts/host/address.ts';
import { Sysfs } from '../../ts/vfio/sysfs.ts';

export interface FakeDevice {
  readonly driver?: string;
  readonly group?: number;
  /** Whether VFIO made the group, without an IOMMU. */
  readonly withoutIommu?: boolean;
  /** The number of its own file below /dev/vfio/devices. */
  readonly file?: number;
  /** Whether it is a physical function with SR-IOV. */
  readonly sriov?: boolean;
  /** PCI address of the physical function, of a virtual one. */
  readonly physicalFunction?: string;
  /** The file `reserved_regions` of its group. */
  readonly reserved?: string;
  /** The vendor of its IOMMU. */
  readonly iommu?: 'intel' | 'amd';
}

/** Removed at the end of the test. */
export function fakeSysfs(
  t: ExecutionContext,
  devices: Readonly<Record<string, FakeDevice>>,
  kernel: HostMachine['kernel'] = 'unknown',
): Sysfs {
  const root = mkdtempSync(join(tmpdir(), 'peerdma-sysfs-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  for (const [bdf, { driver, group, withoutIommu, file, sriov, physicalFunction, reserved, iommu }] of Object.entries(
    devices,
  )) {
    const path = join(root, isMediatedName(bdf) ? 'bus/mdev/devices' : 'bus/pci/devices', bdf);
    mkdirSync(path, { recursive: true });
    if (file !== undefined) mkdirSync(join(path, `vfio-dev/vfio${file}`), { recursive: true });
    if (driver !== undefined) symlinkSync(`../../drivers/${driver}`, join(path, 'driver'));
    if (sriov === true) writeFileSync(join(path, 'sriov_totalvfs'), '8\n');
    if (physicalFunction !== undefined) symlinkSync(`../${physicalFunction}`, join(path, 'physfn'));
    if (iommu !== undefined) mkdirSync(join(path, `iommu/${iommu}-iommu`), { recursive: true });
    if (group === undefined) continue;
    symlinkSync(`../../../../kernel/iommu_groups/${group}`, join(path, 'iommu_group'));
    mkdirSync(join(root, 'kernel/iommu_groups', String(group), 'devices', bdf), { recursive: true });
    const groupPath = join(root, 'kernel/iommu_groups', String(group));
    if (withoutIommu === true) writeFileSync(join(groupPath, 'name'), 'vfio-noiommu\n');
    if (reserved !== undefined) writeFileSync(join(groupPath, 'reserved_regions'), reserved);
  }
  return new Sysfs(root, kernel);
}
