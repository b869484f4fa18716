/** Creates the regions of a simulated device's BARs and ROM, and memory for BARs without contents. */
import { NativeMemoryFile } from '#native';
import { SharedFile } from '../../memory/shared-file.ts';
import { MemoryFile, newMemoryFile } from '../../memory/memory-file.ts';
import { hostPageSize } from '../../memory/page-size.ts';
import { native } from '../../native-call.ts';
import { type MsixShape, rangeOf } from '../config/msix.ts';
import { BASE_ADDRESS_COUNT } from '../config/registers.ts';
import { ROM_INDEX } from '../config/bar-registers.ts';
import type { BarLayout } from './bar-layout.ts';
import { memoryContents, registerContents, romContents, withPending, withoutTable } from './region-contents.ts';
import { type RegionContents, SimulatedRegion } from './simulated-region.ts';

/** @internal */
export interface RegionOptions {
  readonly bdf: string;
  readonly bars: readonly BarLayout[];
  readonly romContents: Uint8Array | undefined;
  readonly msix: MsixShape | undefined;
  /** Whether a vector of MSI-X is pending in the device. */
  readonly isPending: (vector: number) => boolean;
  /** See {@link SimulatedRegion}. */
  readonly decodes: (bar: BarLayout) => boolean;
}

/** Creates the regions and their files, both by VFIO's index. Each file belongs to one region. @internal */
export function makeRegions({ bdf, bars, romContents: rom, msix, isPending, decodes }: RegionOptions): {
  readonly regions: readonly (SimulatedRegion | undefined)[];
  readonly files: ReadonlyMap<number, MemoryFile>;
} {
  const files = new Map<number, MemoryFile>();
  const makeFile = ({ index, length, contents }: BarLayout): MemoryFile => {
    const page = hostPageSize();
    const name = index === ROM_INDEX ? `ROM of ${bdf}` : `BAR ${index} of ${bdf}`;
    const file =
      contents === undefined ? MemoryFile.create(((length + page - 1n) / page) * page, { name }) : reopen(contents);
    files.set(index, file);
    return file;
  };
  const region = (bar: BarLayout): SimulatedRegion => {
    const { index, registers } = bar;
    const shape = { ...bar, bdf, decodes: () => decodes(bar) };
    const visible = (contents: RegionContents): RegionContents => {
      const all = msix?.pending.bar === index ? withPending(contents, rangeOf(msix.pending), isPending) : contents;
      return msix?.table.bar === index ? withoutTable(all, rangeOf(msix.table)) : all;
    };
    if (registers !== undefined)
      return new SimulatedRegion({ ...shape, contents: visible(registerContents(registers)) });
    const file = makeFile(bar);
    if (index !== ROM_INDEX) return new SimulatedRegion({ ...shape, file, contents: visible(memoryContents(file)) });
    if (rom !== undefined) file.write(0n, rom);
    return new SimulatedRegion({ ...shape, contents: romContents(bdf, file) });
  };
  try {
    const made = new Map(bars.map((bar) => [bar.index, region(bar)]));
    return { regions: Array.from({ length: BASE_ADDRESS_COUNT + 1 }, (_, index) => made.get(index)), files };
  } catch (error) {
    for (const file of files.values()) file.close();
    throw error;
  }
}

/** Opens the memory of a file as another file: devices that share contents have separate states. */
function reopen({ fd, name }: MemoryFile): MemoryFile {
  const handle = native(() => NativeMemoryFile.fromFd(fd));
  return newMemoryFile(new SharedFile(handle, name));
}
