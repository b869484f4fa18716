/**
 * Compares the regions and the flat map of guest memory with the model.
 */
import type { MemorySnapshot, RangeSnapshot } from '../../../ts/index.ts';
import { type ModelCell, type ModelFlat, PRIVATE } from '../memory-model.ts';
import { PAGE, PAGE_BYTES } from '../pages.ts';
import { mode } from '../recording-target.ts';
import type { Pages } from './operation.ts';
import type { World } from './world.ts';

export function same(what: string, is: unknown, due: unknown): void {
  if (is !== due) throw new Error(`${what}: ${String(is)} instead of ${String(due)}`);
}

export function pagesOf(world: World, { start, end }: RangeSnapshot): Pages {
  const first = world.pageOf(BigInt(start));
  return { at: first, count: world.pageOf(BigInt(end)) - first };
}

/** The byte of the checked page: pages are filled as a whole. */
export function checkedByte(page: number): bigint {
  return page % 2 === 0 ? 0n : PAGE - 1n;
}

export function describeCell({ store, page, writable, kind, region }: ModelCell): string {
  return `${store >= PRIVATE ? 'private' : `file${store}+${page}`} ${mode(writable)} ${kind} ${region}`;
}

/** The regions with their mappings. */
export function compareRegions(world: World, { regions }: MemorySnapshot): void {
  const seen = regions.map(({ name, kind, priority, length, active, range, writable, mappings }) => {
    const cells: string[] = Array.from({ length: Number(length) / PAGE_BYTES }, () => '-');
    for (const mapping of mappings) {
      const [file = '', offset = '0'] = mapping.backing.split('+');
      for (let page = Number(mapping.start) / PAGE_BYTES, n = 0; page < Number(mapping.end) / PAGE_BYTES; page++, n++) {
        const where = file === 'private' ? file : `${file}+${Number(offset) / PAGE_BYTES + n}`;
        cells[page] = `${where} ${mode(mapping.writable)}`;
      }
    }
    const at = range === undefined ? 'nowhere' : pagesOf(world, range).at;
    return [name, kind, priority, at, active ? mode(writable) : '', ...cells].join(' ');
  });
  const due = [...world.model.regions.values()].map(({ name, kind, priority, at, writable, pages }) => {
    const cells = pages.map((page) => {
      if (page === undefined) return '-';
      const where = page.store >= PRIVATE ? 'private' : `file${page.store}+${page.page}`;
      return `${where} ${mode(page.writable)}`;
    });
    return [name, kind, priority, at ?? 'nowhere', at === undefined ? '' : mode(writable), ...cells].join(' ');
  });
  same('the regions', seen.join('\n'), due.join('\n'));
}

/** The flat map, and the bytes that the VMM reads in it. */
export function compareFlat(world: World, { flat: subs }: MemorySnapshot, flat: ModelFlat): void {
  const seen: string[] = flat.map(() => 'nothing');
  for (const sub of subs) {
    const { region, kind, writable, backing } = sub;
    const { at, count } = pagesOf(world, sub);
    const [file = '', offset = '0'] = backing.split('+');
    for (let n = 0; n < count; n++) {
      const where = file === 'private' ? file : `${file}+${Number(offset) / PAGE_BYTES + n}`;
      seen[at + n] = `${where} ${mode(writable)} ${kind} ${region}, of ${byteIn(world, at + n)}`;
    }
  }
  for (const [page, cell] of flat.entries()) {
    const due = cell === undefined ? 'nothing' : `${describeCell(cell)}, of ${world.contents.byte(cell)}`;
    same(`the flat map at page ${page}`, seen[page], due);
  }
}

/** The bytes that the VMM reads in a page. */
function byteIn(world: World, page: number): number | undefined {
  return world.memory.read(world.range({ at: page, count: 1 }).start + checkedByte(page), 1)[0];
}
