/** Lists the parts of a simulated device that migrate. */
import { PeerDmaError } from '../../../errors.ts';
import type { MemoryFile } from '../../../memory/memory-file.ts';
import { ROM_INDEX } from '../../config/bar-registers.ts';
import type { BarLayout } from '../bar-layout.ts';
import { type MemoryPart, SECTION, type StatePart, decodeWrites, encodeWrites } from './device-parts.ts';
import type { DmaQueue } from './dma-queue.ts';
import type { MigratedDevice } from './simulated-migration.ts';

/** A part that is saved as a whole. */
type Saved = Pick<StatePart, 'save' | 'load'>;

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for registers without `save` and `load` @internal */
export function migratedDevice(
  bdf: string,
  device: {
    readonly config: Saved;
    readonly interrupts: Saved;
    readonly queue: DmaQueue;
    readonly bars: readonly BarLayout[];
    readonly files: ReadonlyMap<number, MemoryFile>;
    readonly requireOpen: () => void;
  },
): MigratedDevice {
  const { config, interrupts, queue, files, requireOpen } = device;
  const bars = device.bars.filter(({ index }) => index !== ROM_INDEX);
  const dma: Saved = {
    save: () => encodeWrites(queue.waiting),
    load: (bytes) => queue.replace(decodeWrites(bytes)),
  };
  const parts: StatePart[] = [
    part(SECTION.config, config),
    part(SECTION.interrupts, interrupts),
    part(SECTION.dma, dma),
    ...bars.flatMap((bar) => registersOf(bdf, bar) ?? []),
  ];
  const memory = bars.flatMap(({ index, length }): MemoryPart | [] => {
    const file = files.get(index);
    return file === undefined ? [] : { section: SECTION.memory + index, file, length };
  });
  return { bdf, identity: identityOf(config.save(), bars), memory, parts, queue, requireOpen };
}

function part(section: number, saved: Saved): StatePart {
  return { section, save: () => saved.save(), load: (bytes) => saved.load(bytes) };
}

function registersOf(bdf: string, { index, registers }: BarLayout): StatePart | undefined {
  if (registers === undefined) return undefined;
  if (registers.save === undefined || registers.load === undefined) {
    const text = `${bdf} cannot migrate: the registers of BAR ${index} have no save and load. Add both.`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
  }
  return {
    section: SECTION.registers + index,
    save: () => registers.save?.() ?? new Uint8Array(),
    load: (bytes) => registers.load?.(bytes),
  };
}

/** Vendor and device, the length of config space, and those of the BARs. */
function identityOf(config: Uint8Array, bars: readonly BarLayout[]): Uint8Array {
  const lengths = bars.map(({ index, kind, length }) => `${index} ${kind} ${length}`);
  return Buffer.concat([config.subarray(0, 4), Buffer.from([config.length, ...lengths].join('\n'))]);
}
