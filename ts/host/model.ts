/**
 * PCI devices and IOMMUs of a host as plain data. The host can be another machine, read from a recorded /sys.
 *
 * `undefined` or an empty list means that a thing does not exist; {@link UnknownFact} means that it could not be
 * read, such as capabilities for a user who can read only the header of config space.
 */
import type { AcsFacts, AtsFacts, BridgeBusNumbers, PciePortType } from './config-facts.ts';
import type { CpuIdentity } from './cpu.ts';
import type { IommuGroup, HostIommu } from './iommu.ts';
import type { PcieLinkFacts } from './link.ts';
import type { KernelVersion } from './system/kernel.ts';
import type { BarResource, BridgeWindow } from './resources.ts';

/** The fact exists but could not be read. */
export type UnknownFact = 'unknown';

/** One PCI function: a device, one of its functions, a virtual function, or a bridge. */
export interface PciFunction {
  /** Domain, bus, device and function in the form of /sys: `0000:01:00.0`. */
  readonly address: string;
  /** Vendor, device and revision ids. */
  readonly ids: PciIds;
  /** Class, subclass and programming interface in 24 bits, such as 0x030200. */
  readonly classCode: number | UnknownFact;
  /** The driver; `undefined` if the function has none. */
  readonly driver: string | undefined;
  /** The only driver that can bind (`driver_override`); `undefined` if every matching driver can. */
  readonly driverOverride: string | undefined;
  /** Number of the IOMMU group; `undefined` if no IOMMU isolates the function. */
  readonly group: number | undefined;
  /** Number of the group that VFIO made without an IOMMU (`/dev/vfio/noiommu-NUMBER`). */
  readonly noIommuGroup: number | undefined;
  /** Name of the IOMMU below /sys/class/iommu; `undefined` if /sys links none. */
  readonly iommu: string | undefined;
  /** The implemented BARs, 0 to 5 (of a bridge: 0 and 1), and the ROM. */
  readonly bars: readonly BarResource[];
  /** Address ranges that a bridge forwards downwards; empty if the function is not a bridge. */
  readonly windows: readonly BridgeWindow[];
  /** Bus numbers of a bridge; `undefined` if the function is not a bridge. */
  readonly bridge: BridgeBusNumbers | UnknownFact | undefined;
  /** Address of the bridge directly above; `undefined` for a function on a root bus. */
  readonly parent: string | undefined;
  /** Name of the root bus, `0000:00`; see {@link HostMachine.rootBuses}. */
  readonly rootBus: string;
  /** Type of the function in the PCI Express hierarchy. */
  readonly portType: PciePortType | UnknownFact;
  /** Access control services; `none` if the function has no such capability. */
  readonly acs: AcsFacts | 'none' | UnknownFact;
  /** Address translation services; `none` if the function has no such capability. */
  readonly ats: AtsFacts | 'none' | UnknownFact;
  /** The PCI Express link; `undefined` for a function without a link of its own. */
  readonly link: PcieLinkFacts | undefined;
  /**
   * The kernel's reset methods, the preferred one first. They are `flr`, `af_flr`, `pm`, `bus`, `device_specific`,
   * `acpi` and `cxl_bus`. Empty if the function cannot be reset; unknown if it can, on kernels before 5.15.
   */
  readonly resetMethods: readonly string[] | UnknownFact;
  /** Whether BARs decode memory addresses (Command register; SR-IOV control for a virtual function). */
  readonly memoryDecode: boolean | UnknownFact;
  /** Whether the function can do DMA (Command register). */
  readonly busMaster: boolean | UnknownFact;
  /** The kernel's power state: `D0`, `D1`, `D2`, `D3hot` or `D3cold`. */
  readonly powerState: string | UnknownFact;
  /** Address of the physical function; `undefined` if this is not a virtual function. */
  readonly physicalFunction: string | undefined;
  /** The virtual functions of a physical function; `undefined` without SR-IOV. */
  readonly virtualFunctions: VirtualFunctions | undefined;
  /** The NUMA node; `undefined` if the machine has none or the firmware does not report it. */
  readonly numaNode: number | undefined;
  /** Name of the device file below /dev/vfio/devices, `vfio0`; `undefined` if it has none. */
  readonly vfioFile: string | undefined;
  /** Whether config space reads as anything but all ones; unknown if it could not be read. */
  readonly responds: boolean | UnknownFact;
  /** Bytes of config space that were read: 64 for a plain user, 256 or 4096 for root, 0 for none. */
  readonly configBytes: number;
}

/** Identification registers of a function, 16 bits each unless noted. */
export interface PciIds {
  /** Vendor of the function, such as 0x8086. */
  readonly vendor: number | UnknownFact;
  /** Device id of the vendor. */
  readonly device: number | UnknownFact;
  /** Vendor of the card. */
  readonly subsystemVendor: number | UnknownFact;
  /** Device id of the card's vendor. */
  readonly subsystemDevice: number | UnknownFact;
  /** Revision, 8 bits. */
  readonly revision: number | UnknownFact;
}

/** SR-IOV of a physical function. */
export interface VirtualFunctions {
  /** The most virtual functions (`sriov_totalvfs`). */
  readonly most: number | UnknownFact;
  /** Addresses of the enabled virtual functions, sorted. */
  readonly addresses: readonly string[];
}

/** A bus that begins at a host bridge. */
export interface RootBus {
  /** Domain and bus: `0000:00`. */
  readonly name: string;
  /**
   * The function that identifies the host bridge: the first one on the bus. Linux does it so in drivers/pci/p2pdma.c,
   * `pci_host_bridge_dev`. `undefined` if that function is neither device 00.0 nor a root port.
   */
  readonly hostBridge: string | undefined;
  /** Addresses of the functions directly on the bus. */
  readonly children: readonly string[];
}

/** An invalid file or folder in /sys, and how it was treated. */
export interface HostFinding {
  /** The file or folder, relative to the root. */
  readonly path: string;
  /** The problem as text for people. */
  readonly problem: string;
}

/** PCI functions, IOMMUs and CPU of a host. */
export interface HostMachine {
  /** The folder that was read: /sys, or a recorded one. */
  readonly root: string;
  /** PCI functions by address. */
  readonly functions: ReadonlyMap<string, PciFunction>;
  /** Root buses, sorted by name. */
  readonly rootBuses: readonly RootBus[];
  /** IOMMU groups by number. */
  readonly groups: ReadonlyMap<number, IommuGroup>;
  /** IOMMUs by name. */
  readonly iommus: ReadonlyMap<string, HostIommu>;
  /** Vendor and family of the CPU, which contains the host bridges. */
  readonly cpu: CpuIdentity | UnknownFact;
  /** Whether the CPU reports a hypervisor. */
  readonly virtual: boolean | UnknownFact;
  /** Version of the running kernel; unknown for a recorded /sys. */
  readonly kernel: KernelVersion | UnknownFact;
  /** Invalid files and folders; empty if all of /sys is valid. */
  readonly findings: readonly HostFinding[];
}
