/**
 * Reports for each BAR whether it can be mapped and exported as a dma-buf, and its page size.
 */
import { hex } from '../../address-range.ts';
import { isVfioDriver } from '../../host/drivers.ts';
import type { HostMachine, PciFunction } from '../../host/model.ts';
import type { PeerTargetBar } from '../../host/peer-to-peer/model.ts';
import { PAGE, targetBars } from '../../host/peer-to-peer/target-bars.ts';
import { isAtLeast } from '../../host/system/kernel.ts';
import { sizeOf } from '../../size.ts';
import { type DmaBufs, dmaBufsOf } from '../dma-bufs.ts';
import type { Facts } from '../facts.ts';
import type { BarDiagnosis, DoctorFinding } from '../finding.ts';
import { addToCommandLine } from '../commands.ts';

const HUGE_PAGES = [1n << 30n, 1n << 21n];
/** First kernel whose type1 maps BARs in huge pages (Linux commit 0fd06844de5d), not 4 KiB at a time. */
const HUGE_MAPPINGS_SINCE = [6, 16] as const;
/** Size from which slow mapping is reported: about 30 ms for each GiB. */
const LARGE = 1n << 30n;

/** Facts of an open device's BARs. @internal */
export interface OpenBars {
  readonly mappable: (index: number) => boolean;
  /** Whether BARs can be exported as dma-bufs: all or none (Linux, `vfio_pci_core_feature_dma_buf`). */
  readonly exported: boolean;
}

/** Reports BARs 0 to 5. @param open facts of the open device, which replace derived ones @internal */
export function barFindings(facts: Facts, device: PciFunction, open?: OpenBars): DoctorFinding[] {
  const derived = dmaBufsOf(facts.system.kernel, device.driver);
  const { frameBuffers: known } = facts.system;
  const frameBuffers = known === 'unknown' ? new Map<number, string>() : known.on(device);
  const dmaBufs = open?.exported === true ? { given: true, evidence: 'it was opened' } : derived;
  return targetBars(device, undefined).map((target) => {
    const frameBuffer = frameBuffers.get(target.index);
    if (frameBuffer !== undefined) return heldFinding(facts, device, target, frameBuffer);
    const notOffered = open?.mappable(target.index) === false ? NOT_OFFERED : undefined;
    const problem = target.problem ?? (device.responds === false ? SILENT : notOffered);
    return barFinding(facts, device, { ...target, problem }, dmaBufs);
  });
}

function heldFinding(facts: Facts, device: PciFunction, target: PeerTargetBar, frameBuffer: string): DoctorFinding {
  const { host } = facts;
  const { index, length } = target;
  const released = isReleasedByBinding(facts, device);
  const remedy = released
    ? 'Bind the device to vfio-pci, which removes it (Linux 6.1 and later)'
    : 'Boot without that frame buffer';
  return {
    id: 'bar',
    state: 'warning',
    text: `${nameOf(target)}: cannot be mapped while the firmware's frame buffer (${frameBuffer}) is on it. ${remedy}`,
    evidence: `/proc/iomem; ${resourceFile(host, device, index)}`,
    fix: released ? undefined : addToCommandLine('initcall_blacklist=sysfb_init'),
    bar: { index, length, mappable: false, exportable: false, pageSize: 0n },
  };
}

/** Class of devices from which vfio-pci removes console drivers since 6.1 (`vfio_pci_vga_init`). */
const VGA = 0x0300;
const CONSOLES_REMOVED_SINCE = [6, 1] as const;

function isReleasedByBinding({ system: { kernel } }: Facts, { driver, classCode }: PciFunction): boolean {
  if (isVfioDriver(driver) || classCode === 'unknown' || classCode >> 8 !== VGA) return false;
  return kernel === 'unknown' || isAtLeast(kernel, CONSOLES_REMOVED_SINCE);
}

const SILENT = 'cannot be mapped while the device does not respond';
const NOT_OFFERED = 'the driver allows reads and writes, but no mapping';

function barFinding(
  { host, system }: Facts,
  device: PciFunction,
  target: PeerTargetBar,
  dmaBufs: DmaBufs,
): DoctorFinding {
  const id = 'bar';
  const { index, length, address, problem } = target;
  const name = nameOf(target);
  const evidence = resourceFile(host, device, index);
  if (problem !== undefined) {
    const bar: BarDiagnosis = { index, length, mappable: false, exportable: false, pageSize: 0n };
    // I/O ports are never mapped, so this is not a warning.
    const io = device.bars.some((each) => each.index === index && each.kind === 'io');
    const fix = address === undefined ? addToCommandLine('pci=realloc') : undefined;
    return { id, state: io ? 'ok' : 'warning', text: `${name}: ${problem}`, evidence, fix, bar };
  }
  const { kernel } = system;
  const slow = length >= LARGE && kernel !== 'unknown' && !isAtLeast(kernel, HUGE_MAPPINGS_SINCE);
  const bar: BarDiagnosis = {
    index,
    length,
    mappable: true,
    exportable: dmaBufs.given,
    pageSize: address === undefined ? PAGE : pageSizeOf(address, length),
  };
  const text = `${name}: ${abilities(bar)}${slow ? `. ${SLOW}` : ''}`;
  return { id, state: slow ? 'warning' : 'ok', text, evidence: `${evidence}; ${dmaBufs.evidence}`, bar };
}

function nameOf({ index, length, address }: PeerTargetBar): string {
  return `BAR ${index}, ${sizeOf(length)}${address === undefined ? '' : ` at ${hex(address)}`}`;
}

function resourceFile({ root }: HostMachine, { address }: PciFunction, index: number): string {
  return `${root}/bus/pci/devices/${address}/resource, line ${index + 1}`;
}

const SLOW = 'Before Linux 6.16 type1 maps 4 KiB at a time: about 30 ms for each GiB';

/** Returns the largest page size. It applies if guest and host addresses are equal modulo that size. */
function pageSizeOf(address: bigint, length: bigint): bigint {
  return HUGE_PAGES.find((size) => length >= size && address % size === 0n) ?? PAGE;
}

function abilities({ exportable, pageSize }: BarDiagnosis): string {
  const pages = `in pages of ${sizeOf(pageSize)}${pageSize === PAGE ? '' : ' if it is aligned to them in the guest too'}`;
  const dmaBuf = { true: 'also as a dma-buf', false: 'not as a dma-buf', unknown: 'perhaps also as a dma-buf' };
  return `can be mapped, ${pages}; ${dmaBuf[`${exportable}`]}`;
}
