/**
 * Memory that is a file: one object for all {@link MemoryFile} objects of a file.
 */
import { fstatSync } from 'node:fs';
import type { NativeMemoryFile } from '#native';
import { requireViewable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native, nativeAsync } from '../native-call.ts';
import { FileBlocks } from './file-blocks.ts';
import type { MemoryFile } from './memory-file.ts';

/** Single accesses to the memory of a device, by offsets in its file. @internal */
export interface DeviceAccess {
  read(offset: bigint, into: Uint8Array): void;
  write(offset: bigint, bytes: Uint8Array): void;
}

/** The state of a device's memory. @internal */
export interface DeviceState {
  /** Whether memory decode is on and the device is not in D3hot. */
  readonly accessible: boolean;
  /**
   * How often this process has revoked dma-buf mappings of the memory. Only grows.
   *
   * Memory decode off, D3hot and a reset revoke them.
   */
  readonly revocations: number;
  /** Whether the device is stopped for a migration. It accepts no DMA then. Default: false */
  readonly isStopped?: boolean;
  /** Reads and writes the memory; `undefined` if the file itself can be read and written. */
  readonly access?: DeviceAccess;
}

/** An address space that maps files. @internal */
export interface FileMapper {
  /** Unique; a later address space has a higher one. */
  readonly id: number;
  /** Unmaps the memory of these files from every target, calls `act`, and maps it again. */
  runWhileUnmapped(files: readonly SharedFile[], act: () => void | Promise<void>, onTurn?: () => void): Promise<void>;
  /** Maps to each target the memory of these files that it lacks. */
  retryDeviceMemory(files: readonly SharedFile[]): Promise<void>;
}

/** It is open until it is closed and no mapping retains it. @internal */
export class SharedFile {
  readonly handle: NativeMemoryFile;
  /** Name in errors and in {@link GuestMemory.inspect}. */
  readonly name: string;
  /** The device whose memory it is, if it is one. */
  device: DeviceState | undefined;
  /** The object that requests to targets carry; `MemoryFile` makes it. */
  requestFile: MemoryFile | undefined;
  /** The address spaces that map it, or are about to. They can be collected without being closed. */
  readonly mappers = new Set<WeakRef<FileMapper>>();
  /** Number of mappings of the file; they keep it open. */
  #users = 0;
  #isClosed = false;
  #releaseUse: (() => void) | undefined;
  #blocks: FileBlocks | undefined;

  #isRegular: boolean | undefined;

  constructor(handle: NativeMemoryFile, name: string) {
    this.handle = handle;
    this.name = name;
  }

  /** @param mapped whether it is enough that a mapping retains it @throws {PeerDmaError} `ERR_CLOSED` */
  requireOpen(mapped: boolean): void {
    if (!this.#isClosed || (mapped && this.#users > 0)) return;
    throw new PeerDmaError('ERR_CLOSED', `the memory file ${this.name} is closed`);
  }

  /** Whether it was closed; mappings may still retain it. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether a mapping retains it. */
  get isMapped(): boolean {
    return this.#users > 0;
  }

  /**
   * Whether another process can map the file by a descriptor.
   *
   * It can map regular files, such as memfds and files of tmpfs or hugetlbfs, but not the memory of a device.
   */
  get isShareable(): boolean {
    return this.device === undefined && (this.#isRegular ??= fstatSync(this.handle.fd).isFile());
  }

  /** Keeps the memory, even after the file is closed, until the returned function is called. */
  retain(): () => void {
    this.requireOpen(true);
    this.#users++;
    // All mappings of the file share one function: there may be many.
    return (this.#releaseUse ??= () => {
      if (--this.#users === 0 && this.#isClosed) this.#release();
    });
  }

  /** Closes it, once no mapping retains it. Idempotent. */
  close(): void {
    this.#isClosed = true;
    if (this.#users === 0) this.#release();
  }

  /** The blocks of the file, valid while it is open or retained. */
  get blocks(): FileBlocks {
    return (this.#blocks ??= new FileBlocks(this.handle));
  }

  /**
   * Maps part of a file made by {@link MemoryFile.create} as a buffer, which outlives the file.
   *
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` for more bytes than an `ArrayBuffer` can have
   */
  view(offset: bigint, length: bigint): ArrayBuffer {
    this.requireOpen(false);
    requireViewable(length, this.name);
    return native(() => this.handle.view(offset, length));
  }

  /** Copies bytes out: from the file, or from the device by single accesses. */
  read(offset: bigint, into: Uint8Array): void {
    const access = this.device?.access;
    if (access === undefined) native(() => this.handle.read(offset, into));
    else access.read(offset, into);
  }

  /** Copies bytes in: to the file, or to the device by single accesses. */
  write(offset: bigint, bytes: Uint8Array): void {
    const access = this.device?.access;
    if (access === undefined) native(() => this.handle.write(offset, bytes));
    else access.write(offset, bytes);
  }

  /** Whether the file has all bytes up to an offset now. */
  reaches(end: bigint): boolean {
    return native(() => this.handle.isPresent(end));
  }

  /**
   * Faults in part of the file without mapping it in the host view.
   *
   * @throws {PeerDmaError} `ERR_MEMORY_FAULT`, `ERR_HUGE_PAGES_UNAVAILABLE`
   */
  async faultIn(offset: bigint, length: bigint, transparentHugePages: boolean): Promise<void> {
    await nativeAsync(() => this.handle.faultIn(offset, length, transparentHugePages));
  }

  #release(): void {
    this.#blocks?.close();
    native(() => this.handle.close());
  }
}
