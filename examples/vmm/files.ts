/**
 * Reads the files of a guest.
 */
import { readFile } from 'node:fs/promises';
import { type BzImage, parseBzImage } from './boot/bzimage.ts';
import { SetupError, systemReason } from './failures.ts';

/**
 * Reads the kernel.
 *
 * @throws {SetupError} if the file cannot be read, or is not a bzImage for x86-64
 */
export async function readKernel(path: string): Promise<BzImage> {
  const file = await readNamed('--kernel', path);
  try {
    return parseBzImage(file);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    throw new SetupError(`--kernel ${path}: ${error.message}`, { cause: error });
  }
}

/**
 * Reads the initial RAM file system. It is empty without a path.
 *
 * @throws {SetupError} if the file cannot be read
 */
export async function readInitrd(path: string | undefined): Promise<Uint8Array> {
  return path === undefined ? new Uint8Array() : readNamed('--initrd', path);
}

async function readNamed(option: string, path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const reason = systemReason(error as NodeJS.ErrnoException);
    throw new SetupError(`${option} ${path}: read failed: ${reason}. Name a file that this user can read`);
  }
}
