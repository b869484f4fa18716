/**
 * What a host says of its PCI devices: plain data, read once, about a machine that may be another one.
 *
 * Two things are kept apart everywhere: what is not there (`undefined`, an empty list) and what can't be known
 * ({@link Unknown}), such as capabilities for a user who may read no more than the header of config space.
 */
import type { AcsFacts, AtsFacts, BusNumbers, PortType } from './config-facts.ts';
import type { CpuIdentity } from './cpu.ts';
import type { IommuGroup, Iommu } from './iommu.ts';
import type { LinkFacts } from './link.ts';
import type { KernelVersion } from './system/kernel.ts';
import type { BarResource, BridgeWindow } from './resources.ts';

/** The fact exists, and what was read does not tell it. */
export type Unknown = 'unknown';

/** One PCI function: a device, one of its functions, a virtual function, or a bridge. */
export interface PciFunction {
  /** `0000:01:00.0`: domain, bus, device and function, as /sys has them. */
  readonly address: string;
  /** What config space says that it is. */
  readonly ids: PciIds;
  /** Class, subclass and programming interface in 24 bits, such as 0x030200 (`class` in /sys). */
  readonly classCode: number | Unknown;
  /** Its driver; `undefined` where it has none. */
  readonly driver: string | undefined;
  /** The only driver that may have it (`driver_override`); `undefined` where any that fits may. */
  readonly driverOverride: string | undefined;
  /** Number of its IOMMU group; `undefined` where no IOMMU is on, or none is before this device. */
  readonly group: number | undefined;
  /** Number of the group that VFIO made for it in place of an IOMMU's (`/dev/vfio/noiommu-NUMBER`). */
  readonly noIommuGroup: number | undefined;
  /** Name of its IOMMU below /sys/class/iommu; `undefined` where /sys links none. */
  readonly iommu: string | undefined;
  /** BARs 0 to 5 (of a bridge: 0 and 1) and the ROM, those that the function has. */
  readonly bars: readonly BarResource[];
  /** What a bridge forwards downwards; empty for what is no bridge. */
  readonly windows: readonly BridgeWindow[];
  /** `undefined` for what is no bridge. */
  readonly bridge: BusNumbers | Unknown | undefined;
  /** Address of the bridge that it is behind; `undefined` directly on a root bus. */
  readonly parent: string | undefined;
  /** Name of its root bus, `0000:00`; {@link Host.rootBuses} has it. */
  readonly rootBus: string;
  /** What it is in a PCI Express hierarchy. */
  readonly portType: PortType | Unknown;
  /** Access control services; `none` where the function has no such capability. */
  readonly acs: AcsFacts | 'none' | Unknown;
  /** Address translation services; `none` where the function has no such capability. */
  readonly ats: AtsFacts | 'none' | Unknown;
  /** Of a function that has a PCI Express link of its own. */
  readonly link: LinkFacts | undefined;
  /**
   * Ways to reset it, the preferred one first, by the kernel's names: `flr`, `af_flr`, `pm`, `bus`, `device_specific`,
   * `acpi`, `cxl_bus`. Empty where it can't be reset; unknown where the kernel (before 5.15) says only that it can.
   */
  readonly resetMethods: readonly string[] | Unknown;
  /** Whether it answers at memory addresses (Command register; for a virtual function the physical one's SR-IOV control). */
  readonly memoryDecode: boolean | Unknown;
  /** Whether it may do DMA (Command register). */
  readonly busMaster: boolean | Unknown;
  /** As the kernel has it: `D0`, `D1`, `D2`, `D3hot`, `D3cold`. */
  readonly powerState: string | Unknown;
  /** Of a virtual function: address of the physical one. */
  readonly physicalFunction: string | undefined;
  /** Of a physical function. */
  readonly virtualFunctions: VirtualFunctions | undefined;
  /** `undefined` where the machine has no such nodes, or the firmware does not say. */
  readonly numaNode: number | undefined;
  /** Name of its file below /dev/vfio/devices, `vfio0`; `undefined` where VFIO does not have it, or has no such files. */
  readonly vfioFile: string | undefined;
  /** Whether its config space reads as something else than ones; unknown where it could not be read. */
  readonly answers: boolean | Unknown;
  /** Bytes of config space that could be read: 64 for a plain user, 256 or 4096 for root; 0 for nothing. */
  readonly configBytes: number;
}

/** Numbers that say what a function is, 16 bits each. */
export interface PciIds {
  /** Who made the function, such as 0x8086. */
  readonly vendor: number | Unknown;
  /** The maker's number of it. */
  readonly device: number | Unknown;
  /** Who made the card. */
  readonly subsystemVendor: number | Unknown;
  /** The card maker's number of it. */
  readonly subsystemDevice: number | Unknown;
  /** 8 bits. */
  readonly revision: number | Unknown;
}

/** SR-IOV of a physical function. */
export interface VirtualFunctions {
  /** How many it could have (`sriov_totalvfs`). */
  readonly most: number | Unknown;
  /** Addresses of those that are on, in the order of their numbers. */
  readonly addresses: readonly string[];
}

/** A bus that begins at a host bridge. */
export interface RootBus {
  /** `0000:00`: domain and bus. */
  readonly name: string;
  /**
   * The first function on it: how the kernel recognises a host bridge, since host bridges themselves are no PCI functions
   * (Linux, drivers/pci/p2pdma.c: `pci_host_bridge_dev`). `undefined` where that function is neither device 00.0 nor a
   * root port, and so says nothing about the host bridge.
   */
  readonly hostBridge: string | undefined;
  /** Addresses of the functions directly on it. */
  readonly children: readonly string[];
}

/** Something in /sys that makes no sense, and what was made of it. */
export interface HostFinding {
  /** The file or folder, relative to the root. */
  readonly path: string;
  /** What is wrong with it, for people. */
  readonly problem: string;
}

/** All of it. */
export interface Host {
  /** The folder that was read: /sys, or a recorded one. */
  readonly root: string;
  /** By address. */
  readonly functions: ReadonlyMap<string, PciFunction>;
  /** Where the trees of PCI functions begin, in order of name. */
  readonly rootBuses: readonly RootBus[];
  /** By number. */
  readonly groups: ReadonlyMap<number, IommuGroup>;
  /** By name. */
  readonly iommus: ReadonlyMap<string, Iommu>;
  /** Whose host bridges these are, as far as the CPU tells. */
  readonly cpu: CpuIdentity | Unknown;
  /** Whether this is a virtual machine, as far as the CPU tells. */
  readonly virtual: boolean | Unknown;
  /** The version of the kernel that runs; unknown for a recorded /sys. */
  readonly kernel: KernelVersion | Unknown;
  /** Empty for a machine that is in order. */
  readonly findings: readonly HostFinding[];
}
