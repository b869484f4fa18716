/**
 * The world of a random program. It has guest memory, its regions and targets by name, and the model of the expected
 * state.
 */
import {
  AddressRange,
  type Backing,
  type DeviceMemory,
  type DmaMapperHandle,
  type GuestMemory,
  MemoryFile,
  type PeerToPeer,
  type Region,
} from '../../../ts/index.ts';
import { fileMemoryOf } from '../../../ts/memory/memory-file.ts';
import { MemoryModel, ModelContents, type ModelFlat } from '../memory-model.ts';
import { at, PAGE_BYTES } from '../pages.ts';
import { type CastMember, type CastName, makeCast } from './cast.ts';
import { FaultInjector } from './faults.ts';
import { FILE_PAGES, FILES, type Pages, SIZE } from './operation.ts';

/** A region or a window of a program, also after its removal. */
export type PlaceInWorld =
  | { readonly region: Region; readonly at: number; readonly count: number; readonly window?: undefined }
  | { readonly window: DeviceMemory; readonly count: number; readonly region?: undefined };

/** A registered target. */
export interface Member {
  readonly policy: PeerToPeer;
  /** False if it was removed but kept mappings. */
  readonly joined: boolean;
}

export interface WorldOptions {
  readonly memory: GuestMemory;
  /** Address of page 0. */
  readonly base: bigint;
  /** Files beyond the first {@link FILES}, from page 0 on. */
  readonly more?: readonly ((page: number) => Backing)[];
}

export class World {
  readonly memory: GuestMemory;
  readonly files: readonly MemoryFile[];
  readonly faults = new FaultInjector();
  readonly cast: Readonly<Record<CastName, CastMember>> = makeCast(this.faults);
  readonly places = new Map<string, PlaceInWorld>();
  /** In the order in which they joined. */
  readonly members = new Map<CastName, Member>();
  readonly handles = new Map<CastName, DmaMapperHandle>();
  readonly contents = new ModelContents();
  model = new MemoryModel();
  readonly #base: bigint;
  readonly #more: readonly ((page: number) => Backing)[];

  constructor({ memory, base, more = [] }: WorldOptions) {
    this.memory = memory;
    this.#base = base;
    this.#more = more;
    this.files = Array.from({ length: FILES }, (_, store) => {
      const file = MemoryFile.create(at(FILE_PAGES), { name: `file${store}` });
      const bytes = new Uint8Array(FILE_PAGES * PAGE_BYTES);
      for (let page = 0; page < FILE_PAGES; page++) {
        const byte = 0x10 + store * 0x20 + page;
        bytes.fill(byte, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
        this.contents.fill({ store, page }, byte);
      }
      file.write(0n, bytes);
      return file;
    });
  }

  /** @throws for an unknown name, which a program never uses */
  place(name: string): PlaceInWorld {
    const place = this.places.get(name);
    if (place === undefined) throw new Error(`there is no ${name}`);
    return place;
  }

  /** Addresses of pages. */
  range({ at: first, count }: Pages): AddressRange {
    return AddressRange.of(this.#base + at(first), at(count));
  }

  /** The page of an address. */
  pageOf(address: bigint): number {
    return Number((address - this.#base) / at(1));
  }

  backing(file: number | 'private', page: number): Backing {
    if (file === 'private') return 'private';
    const made = this.files[file];
    if (made !== undefined) return { file: made, offset: at(page) };
    const more = this.#more[file - FILES];
    if (more === undefined) throw new Error(`there is no file ${file}`);
    return more(page);
  }

  flat(): ModelFlat {
    return this.model.flat(SIZE);
  }

  /** Whether the file of a backing is the file with that number. */
  isFile(store: number, file: MemoryFile): boolean {
    const own = this.files[store];
    return own !== undefined && fileMemoryOf(own) === fileMemoryOf(file);
  }

  closeFiles(): void {
    for (const file of this.files) file.close();
  }
}
