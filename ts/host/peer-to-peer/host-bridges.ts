/**
 * Whether a root complex forwards requests from one of its ports to another.
 *
 * No register reports it, and the PCI Express Base Specification (1.3.1) leaves it open. The sources are:
 *
 * - the kernel's list of root complexes on which its own drivers do peer-to-peer: Linux 7.3, drivers/pci/p2pdma.c,
 *   `pci_p2pdma_whitelist` and `cpu_supports_p2pdma`;
 * - QEMU's emulated machines: DMA of a device uses the same memory map as the CPU (`pci_dma_rw`,
 *   include/hw/pci/pci_device.h), and that map has all BARs.
 *
 * The list holds for physical machines. In a virtual machine the CPU is the host's and the root complex is software:
 * the hypervisor and the root complex of its host decide whether a request of an assigned device arrives.
 *
 * VFIO does not check it: a BAR can be mapped into an IOMMU on any machine.
 */
import type { CpuIdentity } from '../cpu.ts';
import type { HostMachine, PciFunction, RootBus } from '../model.ts';
import type { PeerReason } from './model.ts';

const INTEL = 0x8086;
const AMD = 0x1022;
const GOOGLE = 0x1ae0;
const NVIDIA = 0x10de;
const RED_HAT = 0x1af4;
/** Red Hat's second vendor id, of QEMU's devices only (bridges, NVMe, xHCI; docs/specs/pci-ids.rst). */
const QEMU_OWN = 0x1b36;
/** QEMU's subsystem id for devices without one of their own (PCI_SUBDEVICE_ID_QEMU). */
const QEMU = 0x1100;
/** First family of AMD's CPUs with Zen cores. */
const ZEN = 0x17;

interface KnownBridge {
  readonly vendor: number;
  /** Device ids; `undefined` for all of the vendor. */
  readonly devices: readonly number[] | undefined;
  readonly name: string;
  /** Whether it forwards only between its own ports (`REQ_SAME_HOST_BRIDGE`). */
  readonly oneOnly?: boolean;
}

/** Host bridges that the kernel lists, by the first function on their root bus. */
const KNOWN_BRIDGES: readonly KnownBridge[] = [
  { vendor: INTEL, devices: [0x3c00, 0x3c01], name: 'Xeon E5, Core i7 (Sandy Bridge)', oneOnly: true },
  { vendor: INTEL, devices: [0x2f00, 0x2f01], name: 'Xeon E5/E7 v3, Core i7 (Haswell)', oneOnly: true },
  { vendor: INTEL, devices: [0x2030, 0x2031, 0x2032, 0x2033, 0x2020], name: 'Skylake-E' },
  { vendor: INTEL, devices: [0x09a2], name: 'Xeon since Ice Lake' },
  { vendor: INTEL, devices: [0x0b25, 0x11fb, 0x1212], name: 'DSA accelerator' },
  { vendor: INTEL, devices: [0x0cfe, 0x1216], name: 'IAA accelerator' },
  { vendor: INTEL, devices: [0x4940, 0x4942, 0x4944, 0x4946, 0x4948], name: 'QAT accelerator' },
  { vendor: GOOGLE, devices: undefined, name: 'Google SoC' },
  { vendor: NVIDIA, devices: [0x2f95, 0x2f96, 0x2f97, 0x2f98], name: 'NVIDIA CPU' },
];

/** AMD's host bridges in the list of the kernel. Since Linux 5.8 it uses the CPU's family (commit dea286bb71ba). */
const ZEN_BRIDGES: readonly number[] = [0x1450, 0x15d0, 0x1630];

/**
 * Whether requests are forwarded, and the reason. No source shows that a bridge does not forward: one that is not on
 * the kernel's list may forward or drop them.
 *
 * @internal
 */
export interface Forwarding {
  readonly forwards: true | 'unknown';
  readonly reason: PeerReason;
}

/** The host bridges of a host by their root buses. @internal */
export class HostBridges {
  readonly #host: HostMachine;
  readonly #buses: ReadonlyMap<string, RootBus>;

  constructor(host: HostMachine) {
    this.#host = host;
    this.#buses = new Map(host.rootBuses.map((bus) => [bus.name, bus]));
  }

  /** Whether the host bridges forward requests from the initiator's root port to the target's. */
  forwarding(initiator: PciFunction, target: PciFunction): Forwarding {
    const decided = this.hypervisorDecides(initiator, target);
    if (decided !== undefined) return { forwards: 'unknown', reason: decided };
    const [from, to] = [initiator.rootBus, target.rootBus];
    const bridges = [this.#bridgeOn(from), this.#bridgeOn(to)];
    const { cpu } = this.#host;
    if (isZen(cpu) && bridges.every((bridge) => [AMD, 'unknown', undefined].includes(bridge?.ids.vendor))) {
      return knownToForward(`AMD CPUs of family 0x${cpu.family.toString(16)} (Zen) forward between root ports`);
    }
    return from === to
      ? within(this.#forwardingOn(from))
      : between(from, to, this.#forwardingOn(from), this.#forwardingOn(to));
  }

  /**
   * Explains why the path of a request is unknown in a virtual machine.
   *
   * Returns `undefined` if the machine's own root complex decides, or if QEMU emulates the bridges and both devices.
   */
  hypervisorDecides(initiator: PciFunction, target: PciFunction): PeerReason | undefined {
    const bridges = [initiator, target].map(({ rootBus }) => this.#bridgeOn(rootBus));
    const evidence = this.#virtual(bridges);
    if (evidence === undefined) return undefined;
    const real = [initiator, target].find((device) => !isEmulated(device));
    if (bridges.every((bridge) => bridge !== undefined && isEmulatedBridge(bridge)) && real === undefined)
      return undefined;
    const subject = real === undefined ? 'what its host bridge forwards' : `what ${real.address} reaches`;
    return {
      code: 'host-bridge-not-known',
      text: `this is a virtual machine (${evidence}): the hypervisor and its host decide ${subject}`,
    };
  }

  /** Returns the evidence for a virtual machine; `undefined` if there is none. */
  #virtual(bridges: readonly (PciFunction | undefined)[]): string | undefined {
    const { cpu, virtual } = this.#host;
    if (virtual === true) return 'its CPU has the flag hypervisor';
    for (const bridge of bridges) {
      if (bridge === undefined) continue;
      if (isEmulatedBridge(bridge)) return `QEMU emulates host bridge ${bridge.rootBus}`;
      if (cpu === 'unknown') continue;
      const other = { intel: AMD, amd: INTEL, hygon: INTEL, other: undefined }[cpu.vendor];
      if (bridge.ids.vendor === other) return `host bridge ${bridge.rootBus} has another vendor than the CPU`;
    }
    return undefined;
  }

  #bridgeOn(rootBus: string): PciFunction | undefined {
    const address = this.#buses.get(rootBus)?.hostBridge;
    return address === undefined ? undefined : this.#host.functions.get(address);
  }

  #forwardingOn(rootBus: string): BridgeForwarding {
    return bridgeOf(rootBus, this.#buses.get(rootBus), this.#bridgeOn(rootBus));
  }
}

/** Forwarding between ports of one host bridge. */
function within({ forwards, text }: BridgeForwarding): Forwarding {
  if (forwards === 'unknown') return mayForward('host-bridge-not-known', text);
  return knownToForward(forwards === 'one' ? `${text}, between its own ports` : text);
}

function between(from: string, to: string, first: BridgeForwarding, second: BridgeForwarding): Forwarding {
  const doubtful = [first, second].find(({ forwards }) => forwards === 'unknown');
  if (doubtful !== undefined) return mayForward('host-bridge-not-known', doubtful.text);
  const single = [first, second].find(({ forwards }) => forwards === 'one');
  if (single !== undefined) {
    return mayForward(
      'host-bridge-one-only',
      `${single.text} only between its own ports: requests to another host bridge cross the link between sockets, slowly or not at all`,
    );
  }
  // Both host bridges usually have the same text, which then appears once.
  if (first.text.replace(from, '') !== second.text.replace(to, ''))
    return knownToForward(`${first.text}; ${second.text}`);
  const both = first.text.replace(`host bridge ${from}`, `host bridges ${from} and ${to}`);
  return knownToForward(both.replace(/\bis on\b/, 'are on'));
}

interface BridgeForwarding {
  readonly forwards: true | 'one' | 'unknown';
  readonly text: string;
}

function bridgeOf(rootBus: string, bus: RootBus | undefined, root: PciFunction | undefined): BridgeForwarding {
  if (bus === undefined || root === undefined)
    return unknownForwarding(`${describeMissingBridge(rootBus, bus)}: whether it forwards is unknown`);
  const { vendor, device } = root.ids;
  if (vendor === 'unknown' || device === 'unknown')
    return unknownForwarding(`the host bridge of bus ${rootBus} cannot be identified`);
  const title = `host bridge ${rootBus} (${id(vendor)}:${id(device)}`;
  if (isEmulatedBridge(root)) return { forwards: true, text: `${title}, emulated by QEMU) forwards` };
  const entry = KNOWN_BRIDGES.find((each) => each.vendor === vendor && (each.devices?.includes(device) ?? true));
  if (entry !== undefined) {
    const text = `${title}, ${entry.name}) is on the kernel's list of forwarding host bridges`;
    return { forwards: entry.oneOnly === true ? 'one' : true, text };
  }
  if (vendor === AMD && ZEN_BRIDGES.includes(device)) return { forwards: true, text: `${title}, AMD Zen) forwards` };
  return unknownForwarding(
    `${title}) is not on the kernel's list of forwarding host bridges: it may drop requests silently`,
  );
}

function isZen(cpu: HostMachine['cpu']): cpu is CpuIdentity & { readonly family: number } {
  return cpu !== 'unknown' && cpu.vendor === 'amd' && cpu.family !== 'unknown' && cpu.family >= ZEN;
}

function isEmulatedBridge({ ids }: PciFunction): boolean {
  return ids.subsystemVendor === RED_HAT && ids.subsystemDevice === QEMU;
}

/** Whether QEMU emulates a device: by its subsystem, or by a vendor id of virtual devices. */
function isEmulated(device: PciFunction): boolean {
  return isEmulatedBridge(device) || device.ids.vendor === RED_HAT || device.ids.vendor === QEMU_OWN;
}

function describeMissingBridge(rootBus: string, bus: RootBus | undefined): string {
  if (bus === undefined || bus.children.length === 0) return `host bridge ${rootBus} has no functions`;
  return `no function identifies host bridge ${rootBus} (the first one is neither 00.0 nor a known root port)`;
}

function mayForward(code: PeerReason['code'], text: string): Forwarding {
  return { forwards: 'unknown', reason: { code, text } };
}

function knownToForward(text: string): Forwarding {
  return { forwards: true, reason: { code: 'host-bridge-known', text } };
}

function unknownForwarding(text: string): BridgeForwarding {
  return { forwards: 'unknown', text };
}

function id(value: number): string {
  return value.toString(16).padStart(4, '0');
}
