/**
 * A process with the descriptor of this process's iommufd. It unmaps ranges on request, without the records of this
 * process.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';

/** The first object of an iommufd has this id (`XA_FLAGS_ALLOC1`). */
export const FIRST_ID = 1;

/**
 * Reads lines of id, IOVA and length. Answers each with the number of bytes that `IOMMU_IOAS_UNMAP` unmapped, or the
 * error.
 */
const PROGRAM = `
  $| = 1;
  open(my $fd, '+<&=', 3) or die $!;
  print "ready\\n";
  while (<STDIN>) {
    my ($id, $iova, $length) = split;
    my $unmap = pack('LLQQ', 24, $id, $iova, $length);
    print ioctl($fd, 0x3b86, $unmap) ? (unpack('LLQQ', $unmap))[3] : $!, "\\n";
  }`;

export class OtherProcess {
  readonly #child: ChildProcess;
  readonly #stdin: Writable;
  readonly #stdout: Readable;

  private constructor() {
    const child = spawn('perl', ['-e', PROGRAM], { stdio: ['pipe', 'pipe', 'inherit', descriptorOf('/dev/iommu')] });
    const { stdin, stdout } = child;
    if (stdin === null || stdout === null) throw new Error('the pipes exist');
    this.#child = child;
    this.#stdin = stdin;
    this.#stdout = stdout;
  }

  static async start(): Promise<OtherProcess> {
    const other = new OtherProcess();
    await other.#answer();
    return other;
  }

  async unmap(iova: bigint, length: bigint): Promise<string> {
    this.#stdin.write(`${FIRST_ID} ${iova} ${length}\n`);
    return await this.#answer();
  }

  /** Its copy of the descriptor is closed with it. */
  async end(): Promise<void> {
    this.#stdin.end();
    await once(this.#child, 'exit');
  }

  async #answer(): Promise<string> {
    const [line] = (await once(this.#stdout, 'data')) as [Buffer];
    return line.toString().trim();
  }
}

/** The descriptors of this process for a file of that name. */
export function descriptorOf(name: string): number {
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`).includes(name)) return Number(fd);
    } catch {
      // the descriptor of the folder itself
    }
  }
  throw new Error(`this process has no ${name} open`);
}
