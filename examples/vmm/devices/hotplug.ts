/**
 * RAM that the guest gets while it runs, by virtio-mem.
 */
import type { AddressRange, GuestMemory, PciHostBridge } from 'peerdma';
import { type VirtualMachine, lineOfPin } from 'peerdma/kvm';
import { HOTPLUG_UNIT } from '../address-map.ts';
import { VirtioMemory } from '../virtio/memory-device.ts';
import { VirtioPciTransport } from '../virtio/pci-transport.ts';
import { MEMORY_SLOT } from './pci-devices.ts';

/** Bytes of a block: a huge page, which the IOMMU maps as one. */
const BLOCK = 2n << 20n;
const INTA = 1;

/** The RAM of a guest that can grow and shrink. */
export interface Hotplug extends Disposable {
  /** Requests more or less RAM by a unit. The guest changes it in its own time. */
  resize(change: 'grow' | 'shrink'): void;
}

/**
 * Adds a virtio-mem device at 00:1f.0. None of its RAM is plugged.
 *
 * @param range guest-physical addresses; multiples of {@link HOTPLUG_UNIT}
 */
export async function addHotplug(
  memory: GuestMemory,
  vm: VirtualMachine,
  bridge: PciHostBridge,
  range: AddressRange,
): Promise<Hotplug> {
  const { start, length } = range;
  const ram = await memory.addPluggableRam({ name: 'hotplug', start, length, blockSize: BLOCK });
  const device = new VirtioMemory(ram);
  const line = vm.line(lineOfPin(MEMORY_SLOT, INTA));
  const transport = new VirtioPciTransport({
    memory,
    device,
    setPin: (isAsserted) => line.set(isAsserted),
    failed: (error) => vm.stop(`virtio-mem: ${error instanceof Error ? error.message : String(error)}`),
  });
  bridge.add(`00:${MEMORY_SLOT.toString(16)}.0`, transport);
  return {
    resize: (change) => device.request(device.requestedLength + (change === 'grow' ? HOTPLUG_UNIT : -HOTPLUG_UNIT)),
    [Symbol.dispose]: () => transport[Symbol.dispose](),
  };
}
