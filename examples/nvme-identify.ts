/**
 * A guest that uses an NVMe disk: `node examples/nvme-identify.ts [BDF]`.
 *
 * The program acts as the guest's firmware, which finds the controller on the bus and places its BARs, and as its
 * driver: queues and data are in guest RAM, and the controller interrupts by MSI-X. It writes nothing to the disk. BDF
 * is the PCI address of a controller that is bound to vfio-pci, by default the first one.
 */
import { parseArgs } from 'node:util';
import { AddressRange, AssignedDevice, GuestMemory, PciHostBridge, PeerDmaError, VfioContainerManager } from 'peerdma';
import { hex, reportTo } from './support/report.ts';
import { findNvme } from './devices/nvme/find.ts';
import { Nvme } from './devices/nvme.ts';
import { Firmware } from './guest/firmware.ts';
import { scanBus } from './guest/pci-bus.ts';

const { step, note, mappingTable } = reportTo(process.stdout);

const RAM = { start: 0n, length: 64n << 20n };
/** The window for the BARs: below 4 GiB, without RAM there. */
const WINDOW = AddressRange.of(0xe000_0000n, 256n << 20n);
/** The addresses of the driver's queues, and of the block that it reads. */
const WORKSPACE = 0x10_0000n;
const BUFFER = 0x20_0000n;

try {
  const { positionals } = parseArgs({ allowPositionals: true });
  await identify(positionals[0] ?? findNvme());
} catch (error) {
  if (!(error instanceof Error)) throw error;
  console.error(error instanceof PeerDmaError ? `${error.code}: ${error.message}` : error.message);
  process.exitCode = 1;
}

async function identify(bdf: string): Promise<void> {
  await using memory = await GuestMemory.create({ ram: [RAM] });
  await using vfio = new VfioContainerManager(memory);
  await using device = await AssignedDevice.create({ device: await vfio.open(bdf), memory });
  step(`${device.bdf} is the guest's`, 'all RAM is mapped into its IOMMU');

  const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
  bridge.add('00:01.0', device);
  const [found] = scanBus(bridge);
  if (found === undefined) throw new Error('the bus has no function');
  const firmware = await Firmware.probe(found);
  await firmware.placeAll(WINDOW.start);
  await firmware.enable();
  const bars = firmware.bars.map(({ index }) => `BAR ${index} at ${hex(firmware.addressOf(index))}`);
  step('firmware places its BARs and switches it on', bars.join(', '));

  const driven = Object.assign(found, { interrupts: device.interrupts });
  await using nvme = await Nvme.open({ device: driven, firmware, memory, workspace: WORKSPACE });
  step('the driver resets it and gives it queues', `NVMe ${nvme.version}, queues at ${hex(WORKSPACE)}`);

  const { controller, namespace } = await nvme.identify();
  step('the controller identifies itself', `model ${show(controller.model)}, serial ${show(controller.serial)}`);
  note(`firmware ${show(controller.firmware)}`);
  note(`namespace ${namespace.id} has ${namespace.blocks} blocks of ${namespace.blockLength} bytes`);

  await nvme.read(0n, 1, BUFFER);
  const start = Buffer.from(memory.read(BUFFER, 16)).toString('hex');
  step(`block 0 comes to ${hex(BUFFER)} by DMA`, `it begins with ${start}`);
  note(`interrupts: ${nvme.interrupts.admin} for commands to the controller, ${nvme.interrupts.blocks} for blocks`);
  mappingTable(memory.inspect());
}

function show(text: string): string {
  return JSON.stringify(text);
}
