/**
 * Reading below /sys, or what is said to be a recorded one: files, links and folders of which nothing is believed. What is
 * there and makes no sense becomes a finding.
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
import type { HostFinding, Unknown } from './model.ts';

/** No attribute of /sys that is read here is longer; a recorded tree may have anything. */
const MOST_BYTES = 64 << 10;
/** What is read at once. */
const PART_BYTES = 16 << 10;

/** Reads files below a root and collects what is wrong with them. @internal */
export class SysFiles {
  readonly root: string;
  readonly #mostBytes: number;
  readonly #findings: HostFinding[] = [];

  /** @param mostBytes that are read of a file; what is longer is cut */
  constructor(root: string, mostBytes: number = MOST_BYTES) {
    this.root = root;
    this.#mostBytes = mostBytes;
  }

  get findings(): readonly HostFinding[] {
    return this.#findings;
  }

  /** Notes what makes no sense. */
  report(path: string, problem: string): void {
    this.#findings.push({ path, problem });
  }

  /** The bytes of a file, as many as are read at most; `undefined` where there is none. */
  bytes(path: string): Uint8Array | undefined {
    let fd: number;
    try {
      // A pipe in a recorded tree would else be waited for.
      fd = openSync(join(this.root, path), constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ENOTDIR') this.report(path, `can't be read: ${text(error)}`);
      return undefined;
    }
    try {
      if (!fstatSync(fd).isFile()) {
        this.report(path, 'is no file');
        return undefined;
      }
      const parts: Buffer[] = [];
      for (let count = -1, length = 0; count !== 0 && length < this.#mostBytes; length += count) {
        const part = Buffer.alloc(Math.min(PART_BYTES, this.#mostBytes - length));
        count = readSync(fd, part, 0, part.length, null);
        parts.push(part.subarray(0, count));
      }
      return Buffer.concat(parts);
    } catch (error) {
      this.report(path, `can't be read: ${text(error)}`);
      return undefined;
    } finally {
      closeSync(fd);
    }
  }

  /** The text of a file without the white space around it; `undefined` where there is no file. */
  text(path: string): string | undefined {
    const bytes = this.bytes(path);
    return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8').trim();
  }

  /** The first line of a file, if it has one that is not empty, without control characters: it may be shown. */
  word(path: string): string | undefined {
    const line = this.text(path)
      ?.split('\n', 1)[0]
      ?.replaceAll(/\p{Cc}/gu, '')
      .slice(0, 256)
      .trim();
    return line || undefined;
  }

  /**
   * A number from a file: decimal, or hexadecimal with 0x.
   *
   * @param most the highest that makes sense
   */
  number(path: string, most: number): number | Unknown {
    const word = this.word(path);
    if (word === undefined) return 'unknown';
    const value = /^(0x[0-9a-f]{1,16}|\d{1,16})$/i.test(word) ? Number(word) : Number.NaN;
    if (value >= 0 && value <= most) return value;
    this.report(path, `says ${JSON.stringify(word.slice(0, 40))}, which is no number up to ${most}`);
    return 'unknown';
  }

  /** Where a link points, as it is written; `undefined` where there is no link. */
  link(path: string): string | undefined {
    try {
      return readlinkSync(join(this.root, path));
    } catch {
      return undefined;
    }
  }

  /** Last part of where a link points. */
  linkName(path: string): string | undefined {
    return this.link(path)?.split('/').filter(Boolean).at(-1);
  }

  /** Whether there is something of that name, be it a link to nowhere. */
  has(path: string): boolean {
    try {
      lstatSync(join(this.root, path));
      return true;
    } catch {
      return false;
    }
  }

  /** Whether it is a folder, or a link to one. */
  isFolder(path: string): boolean {
    try {
      return statSync(join(this.root, path)).isDirectory();
    } catch {
      return false; // missing, below a file, without permission, or not a path
    }
  }

  /** Names in a folder, sorted; none where there is no folder. */
  names(path: string): string[] {
    let entries: Dirent[];
    try {
      entries = readdirSync(join(this.root, path), { withFileTypes: true });
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.report(path, `can't be listed: ${text(error)}`);
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
