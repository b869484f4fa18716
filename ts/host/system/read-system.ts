/**
 * Reads facts of a machine that are not of PCI devices. They are kernel, firmware, limits, huge pages and open files.
 */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import type { HostMachine, UnknownFact } from '../model.ts';
import { SysFiles } from '../sys-files.ts';
import { filesOf } from '../vfio-files.ts';
import { type OpenFile, readOpenFiles } from '../use/open-files.ts';
import { FrameBuffers } from './frame-buffers.ts';
import { type HugePageFacts, readHugePages } from './huge-pages.ts';
import { type InterruptFacts, readInterrupts } from './interrupts.ts';
import { type KernelFacts, readKernel } from './kernel.ts';
import { type LimitFacts, readLimits } from './limits.ts';
import { isInUserNamespace } from './user-namespace.ts';

/** Limit for files outside of /sys; lists of modules and of memory mappings are long. */
const MAX_BYTES = 4 << 20;
/** ACPI tables that describe IOMMUs: Intel's, AMD's, virtio's. */
const IOMMU_TABLES = ['DMAR', 'IVRS', 'VIOT'];

/** Folders that a machine is read from. @internal */
export interface SystemRoots {
  readonly sys: string;
  /** The folder with `proc`, `dev`, `lib` and `boot`; `undefined` if only a recorded /sys exists. */
  readonly top: string | undefined;
}

/** @internal */
export interface SystemFacts {
  readonly kernel: KernelFacts | UnknownFact;
  /** Whether the machine is virtual. */
  readonly virtual: boolean | UnknownFact;
  /** Whether Linux runs on Xen, which reserves the IOMMU for itself. */
  readonly onXen: boolean;
  /** ACPI tables that describe an IOMMU; unknown if /sys has no ACPI. */
  readonly iommuTables: readonly string[] | UnknownFact;
  /** Whether /sys would list IOMMU groups if there were any. */
  readonly showsGroups: boolean;
  readonly interrupts: InterruptFacts;
  /** Whether this process is in a user namespace other than the initial one. */
  readonly inUserNamespace: boolean | UnknownFact;
  readonly limits: LimitFacts;
  readonly hugePages: HugePageFacts;
  /** Frame buffers in /proc/iomem. */
  readonly frameBuffers: FrameBuffers | UnknownFact;
  /** Whether the driver vfio-pci is loaded; unknown if /sys lists no drivers. */
  readonly vfioPci: boolean | UnknownFact;
  /** Limit of mappings in a type1 container (`dma_entry_limit`); unknown if its module is not loaded. */
  readonly dmaEntries: number | UnknownFact;
  /**
   * Whether this user can read and write the device files of functions: `ok` or the errno. Other files are not listed.
   */
  readonly access: ReadonlyMap<string, 'ok' | string>;
  /** Open device files: of all processes for root, of the user's own processes otherwise. */
  readonly openFiles: readonly OpenFile[] | UnknownFact;
}

/** @internal */
export function readSystem({ sys, top }: SystemRoots, host: HostMachine): SystemFacts {
  const files = new SysFiles(sys);
  const all = top === undefined ? undefined : new SysFiles(top, MAX_BYTES);
  const inUserNamespace = isInUserNamespace(all);
  const iomem = all?.text('proc/iomem');
  return {
    kernel: readKernel(all),
    virtual: isVirtual(all?.text('proc/cpuinfo')),
    onXen: files.word('hypervisor/type') === 'xen',
    iommuTables: files.has('firmware/acpi/tables')
      ? files.names('firmware/acpi/tables').filter((name) => IOMMU_TABLES.includes(name))
      : 'unknown',
    showsGroups: top !== undefined || files.has('kernel/iommu_groups'),
    interrupts: readInterrupts(files),
    inUserNamespace,
    limits: readLimits(all, inUserNamespace),
    hugePages: readHugePages(files),
    frameBuffers: iomem === undefined ? 'unknown' : new FrameBuffers(iomem),
    vfioPci: files.has('bus/pci/drivers') ? files.has('bus/pci/drivers/vfio-pci') : 'unknown',
    dmaEntries: files.number('module/vfio_iommu_type1/parameters/dma_entry_limit', 2 ** 32 - 1),
    access: top === undefined ? new Map() : readAccess(top, host),
    openFiles: top === undefined ? 'unknown' : readOpenFiles(new SysFiles(join(top, 'proc'), MAX_BYTES)),
  };
}

/** Searches `flags` for `hypervisor` (arch/x86/include/asm/cpufeatures.h: X86_FEATURE_HYPERVISOR). */
function isVirtual(cpuinfo: string | undefined): boolean | UnknownFact {
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo ?? '')?.[1];
  return flags === undefined ? 'unknown' : flags.split(' ').includes('hypervisor');
}

function readAccess(top: string, { functions }: HostMachine): Map<string, string> {
  const access = new Map<string, string>();
  for (const each of functions.values()) {
    const { byGroup, own } = filesOf(each);
    for (const path of [byGroup, own]) if (path !== undefined) access.set(path, accessOf(join(top, path)));
  }
  return access;
}

function accessOf(path: string): string {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return 'ok';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'EIO';
  }
}
