/**
 * Reads files, links and folders below /sys or a recorded copy of it.
 *
 * The contents are not trusted: invalid ones become findings.
 */
import {
  type Dirent,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  statSync,
  openSync,
  readSync,
  readdirSync,
  readlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import type { HostFinding, UnknownFact } from './model.ts';

/** The folder of all PCI functions. @internal */
export const DEVICES = 'bus/pci/devices';
/** Limit for a file. No attribute of /sys that is read here is longer, but files of a recorded tree can be. */
const MAX_BYTES = 64 << 10;
/** Bytes of one read. */
const PART_BYTES = 16 << 10;

/** Reads files below a root and collects problems as findings. @internal */
export class SysFiles {
  readonly root: string;
  readonly #mostBytes: number;
  readonly #findings: HostFinding[] = [];
  /** Kept for the next file: a host has thousands of files of a few bytes. */
  readonly #part = Buffer.alloc(PART_BYTES);

  /** @param mostBytes limit in bytes; longer files are truncated */
  constructor(root: string, mostBytes: number = MAX_BYTES) {
    this.root = root;
    this.#mostBytes = mostBytes;
  }

  get findings(): readonly HostFinding[] {
    return this.#findings;
  }

  /** Adds a finding. */
  report(path: string, problem: string): void {
    this.#findings.push({ path, problem });
  }

  /** Returns the bytes of a file, up to the limit; `undefined` if there is none. */
  bytes(path: string): Uint8Array | undefined {
    let fd: number;
    try {
      // Opening a pipe in a recorded tree would block otherwise.
      fd = openSync(join(this.root, path), constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ENOTDIR')
        this.report(path, `cannot be read: ${text(error)}`);
      return undefined;
    }
    try {
      if (!fstatSync(fd).isFile()) {
        this.report(path, 'is not a file');
        return undefined;
      }
      const parts: Buffer[] = [];
      for (let count = -1, length = 0; count !== 0 && length < this.#mostBytes; length += count) {
        count = readSync(fd, this.#part, 0, Math.min(PART_BYTES, this.#mostBytes - length), null);
        parts.push(Buffer.from(this.#part.subarray(0, count)));
      }
      return Buffer.concat(parts);
    } catch (error) {
      this.report(path, `cannot be read: ${text(error)}`);
      return undefined;
    } finally {
      closeSync(fd);
    }
  }

  /** Returns the text of a file without surrounding white space; `undefined` if there is no file. */
  text(path: string): string | undefined {
    const bytes = this.bytes(path);
    return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8').trim();
  }

  /** Returns the first line of a file without control characters; `undefined` if it is empty. */
  word(path: string): string | undefined {
    const line = this.text(path)
      ?.split('\n', 1)[0]
      ?.replaceAll(/\p{Cc}/gu, '')
      .slice(0, 256)
      .trim();
    return line || undefined;
  }

  /**
   * Returns the number in a file: decimal, or hexadecimal with 0x.
   *
   * @param most the highest valid number
   */
  number(path: string, most: number): number | UnknownFact {
    const word = this.word(path);
    if (word === undefined) return 'unknown';
    const value = /^(0x[0-9a-f]{1,16}|\d{1,16})$/i.test(word) ? Number(word) : Number.NaN;
    if (value >= 0 && value <= most) return value;
    this.report(path, `holds ${JSON.stringify(word.slice(0, 40))}, which is not a number up to ${most}`);
    return 'unknown';
  }

  /** Returns the target of a link as it is written; `undefined` if there is no link. */
  link(path: string): string | undefined {
    try {
      return readlinkSync(join(this.root, path));
    } catch {
      return undefined;
    }
  }

  /** Returns the last part of a link's target. */
  linkName(path: string): string | undefined {
    return this.link(path)?.split('/').filter(Boolean).at(-1);
  }

  /** Whether the path exists, a dangling link included. */
  has(path: string): boolean {
    try {
      lstatSync(join(this.root, path));
      return true;
    } catch {
      return false;
    }
  }

  /** Whether the path is a folder, or a link to one. */
  isFolder(path: string): boolean {
    try {
      return statSync(join(this.root, path)).isDirectory();
    } catch {
      return false; // missing, below a file, without permission, or not a path
    }
  }

  /** Returns the names in a folder, sorted; none if there is no folder. */
  names(path: string): string[] {
    let entries: Dirent[];
    try {
      entries = readdirSync(join(this.root, path), { withFileTypes: true });
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.report(path, `cannot be listed: ${text(error)}`);
      return [];
    }
    return entries.map(({ name }) => name).sort();
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function text(error: unknown): string {
  return codeOf(error) ?? String(error);
}
